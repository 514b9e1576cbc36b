"""The annotation server: who it answers, what it says, and the whole command, killed in the middle."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from commands import Run
from judge_decoding import Case, JudgeDecodingError, read_cases, write_cases
from judge_decoding.cli import main as cli
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import target_info
from judge_decoding.labelling.annotate.server import kept_token, make_app
from judge_decoding.labelling.annotate.session import Session
from judge_decoding.labelling.annotate.storage import token_path
from judge_decoding.loading.models import load_model
from judge_decoding.web.serving import listen
from local_pages import check_self_contained

HOST = "http://127.0.0.1:8765"
TOKEN = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = "<script>document.title = 'taken'</script>\"'&<img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e\u2028"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    cases = [
        Case(question=HOSTILE, answer=HOSTILE, reference=HOSTILE, writer="secret"),
        Case(question="q", answer="a b"),
    ]
    session = Session(cases, tmp_path, "ann", repeats=0)
    with session.log:
        yield session


@pytest.fixture
def client(session: Session) -> TestClient:
    return TestClient(make_app(session, TOKEN), base_url=HOST, headers=BEARER)


def decision(action: str = "correct", turn: int = 0, **more: object) -> dict[str, object]:
    return {"action": action, "turn": turn, "key": f"key number {turn}", **more}


def post(client: TestClient, body: object, origin: str | None = HOST) -> Any:
    headers = {} if origin is None else {"Origin": origin}
    return client.post("/decide", content=json.dumps(body), headers=headers)


def test_a_case_is_decided(client: TestClient, session: Session) -> None:
    first = client.get("/state").json()
    assert (first["done"], first["total"], first["can_undo"]) == (0, 2, False)
    reply = post(client, decision("mark", first=0, last=0, seconds=2.5))
    assert reply.status_code == 200
    assert reply.json()["done"] == 1
    assert [event.seconds for event in session.log.events] == [2.5]


@pytest.mark.parametrize(
    "origin", [None, "null", "https://127.0.0.1:8765", "http://127.0.0.1:1", "http://evil.example"]
)
def test_another_origin_is_refused(client: TestClient, session: Session, origin: str | None) -> None:
    assert post(client, decision(), origin).status_code == 403
    if origin is not None:
        assert client.get("/state", headers={"Origin": origin}).status_code == 403
    assert not session.log.events


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1.evil.example", "", "[", "0.0.0.0:8765"])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    """A page that makes its own name point here must not get in."""
    assert client.get("/state", headers={"Host": host}).status_code == 403
    assert client.post("/decide", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 403


def test_this_machine_goes_by_three_names(client: TestClient) -> None:
    for host in ("localhost:1234", "127.0.0.1", "[::1]:80"):
        assert client.get("/state", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \xe9"])
def test_a_wrong_token_is_refused_everywhere(session: Session, given: str) -> None:
    encoded: Any = {"Authorization": given.encode("latin-1")}
    client = TestClient(make_app(session, TOKEN), base_url=HOST, headers=encoded)
    for path in ("/", "/state", "/agreement", "/nothing", "/?token=wrong", "/state?token=é"):
        reply = client.get(path)
        assert reply.status_code == 403
        assert TOKEN not in reply.text
    assert post(client, decision()).status_code == 403
    assert not session.log.events


def test_the_page_is_one_file_that_trusts_nothing_else(client: TestClient) -> None:
    for path in (f"/?token={TOKEN}", f"/agreement?token={TOKEN}"):
        reply = client.get(path, headers={"Authorization": ""})
        assert reply.status_code == 200
        check_self_contained(reply.text, reply.headers)
        assert reply.headers["referrer-policy"] == "no-referrer"


def test_nobody_can_guess_who_wrote_it(client: TestClient) -> None:
    for path in ("/", "/state", "/agreement"):
        assert "secret" not in client.get(path).text


def test_hostile_text_is_escaped_where_annotators_differ(client: TestClient, session: Session, tmp_path: Path) -> None:
    cases = [Case(question=HOSTILE, answer=HOSTILE, reference=HOSTILE), Case(question="q", answer="a b")]
    with (other := Session(cases, tmp_path, "bob", repeats=0)).log:
        for turn in range(2):
            post(client, decision("mark", turn, first=0, last=0))
            post(TestClient(make_app(other, TOKEN), base_url=HOST, headers=BEARER), decision("correct", turn))
    page = client.get("/agreement").text
    assert "ann and bob" in page
    assert page.count("<article>") == 2
    assert page.count("<script") == page.count("<img") == 0
    assert page.count("&lt;script&gt;") == 3 - 1  # question and reference; in the answer "<" is a piece of its own
    assert "49" not in page


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        json.dumps(decision("destroy")),
        json.dumps(decision(turn=-1)),
        json.dumps(decision(key="short")),
        json.dumps(decision(seconds=-1)),
        json.dumps(decision(seconds=1e300)),
        json.dumps(decision("mark", first=1, last=0)),
        json.dumps(decision("mark", first=0, last=10**30)),
        json.dumps(decision("mark", first=0, last=999)),
        json.dumps(decision("undo")),
        json.dumps(decision(errors=[[0, 1]])),
        '{"action": "correct", "turn": 0, "key": "12345678", "seconds": NaN}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_what_is_no_decision_is_refused_in_a_sentence(client: TestClient, session: Session, body: str | bytes) -> None:
    reply = client.post("/decide", content=body, headers={"Origin": HOST})
    assert reply.status_code == 400
    assert reply.json()["error"].endswith(".")
    assert not session.log.events


def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    reply = client.post("/decide", content=b"x" * 100_000, headers={"Origin": HOST})
    assert reply.status_code == 413


def test_a_second_window_gets_the_next_case(client: TestClient) -> None:
    post(client, decision())
    reply = post(client, decision(key="another window"))
    assert reply.status_code == 409
    assert reply.json()["done"] == 1
    assert "another window" in reply.json()["error"]


def test_the_token_is_kept_and_for_the_owner_only(tmp_path: Path) -> None:
    token = kept_token(tmp_path / "new")
    path = token_path(tmp_path / "new")
    assert kept_token(tmp_path / "new") == token
    assert len(token) == 32
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"\xff short")
    assert kept_token(tmp_path / "new") != token


def test_it_listens_on_this_machine_only_and_a_taken_port_is_told() -> None:
    with listen(0) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(JudgeDecodingError, match="another --port"):
            listen(port)
    with pytest.raises(JudgeDecodingError, match="65535"):
        listen(70_000)


# The command


@pytest.fixture
def annotate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run ``judge-decoding court annotate ...`` in this process, to see it fail; its exit code and stderr."""

    def call(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["judge-decoding", "court", "annotate", *map(str, args), "--no-browser"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        assert isinstance(stop.value.code, int)
        return stop.value.code, err

    return call


class Server:
    """`judge-decoding court annotate` in a process of its own."""

    def __init__(self, answers: Path, folder: Path, *more: str, port: int = 0) -> None:
        command = ("court", "annotate", str(answers), "-o", str(folder), "--no-browser", "--port", str(port), *more)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "judge_decoding.cli.main", *command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]
        parts = urlsplit(self.address)
        self.port, self.origin = parts.port or 0, f"http://{parts.netloc}"
        self.token = parse_qs(parts.query)["token"][0]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def stop(self) -> str:
        """Press Ctrl-C; what it said."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=60)[0]

    def ask(self, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Origin": self.origin}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.origin + path, data, headers)) as reply:
            return json.load(reply)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Ten answers; in odd ones "21" is wrong."""
    path = tmp_path / "answers.jsonl"
    write_cases(
        path,
        [
            Case(question=f"What is 12 + 8? ({i})", answer=f" 12 + 8 = {20 + i % 2}.", reference="20", writer="secret")
            for i in range(10)
        ],
    )
    return path


@pytest.mark.slow
def test_ten_cases_with_the_server_killed_in_the_middle(answers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def some(server: Server, count: int) -> None:
        for _ in range(count):
            state = server.ask("/state")
            pieces = state["case"]["pieces"]
            wrong = pieces.index(" 21") if " 21" in pieces else None
            more = {} if wrong is None else {"first": wrong, "last": wrong}
            action = "correct" if wrong is None else "mark"
            server.ask("/decide", decision(action, state["turn"], seconds=1, **more))

    with Server(answers, folder, "--annotator", "ann", "--repeats", "0.2") as server:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(server.origin)
        some(server, 5)
        token = server.token
        server.kill()
    with (folder / "decisions-ann.jsonl").open("a") as file:
        file.write('{"action":"label","case":')
    with Server(answers, folder, "--annotator", "ann", "--repeats", "0.2") as server:
        assert server.token == token
        assert server.ask("/state")["done"] == 5
        some(server, 7)
        assert server.ask("/state")["case"] is None
        said = server.stop()
        assert server.process.returncode == 0
    assert "10 cases labelled" in said
    assert "ann, the second time: the same verdict on 2 of 2" in said
    lines = [json.loads(line) for line in (folder / "decisions-ann.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert sum(line.get("repeat", False) for line in lines) == 2
    cases = read_cases(folder / "cases-ann.jsonl")
    assert len({case.question for case in cases}) == len(cases) == 10
    for case in cases:
        assert [case.answer[start:end] for start, end in case.errors] == (["21"] if "21" in case.answer else [])


def test_a_folder_in_use_is_refused(answers: Path, tmp_path: Path, annotate) -> None:
    with Server(answers, tmp_path / "out", "--annotator", "ann"):
        code, err = annotate(answers, "-o", tmp_path / "out", "--annotator", "ann")
    assert code == 2
    assert "in use by another" in err


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (("--annotator", "a/b"), "annotator's name"),
        (("--judge", "somewhere"), "--target"),
        (("--repeats", "2"), "between 0 and 1"),
        (("--port", "70000"), "another --port"),
        (("--target", "nowhere/at-all"), "Cannot load the tokenizer"),
    ],
)
def test_mistakes_are_one_sentence(answers: Path, tmp_path: Path, annotate, more: tuple[str, ...], phrase: str) -> None:
    code, err = annotate(answers, "-o", tmp_path / "out", *more)
    assert code == 2
    assert phrase in err


def test_a_folder_that_is_a_file_and_answers_that_are_none(answers: Path, tmp_path: Path, annotate) -> None:
    assert "it is a file" in annotate(answers, "-o", answers)[1]
    assert "Cannot read the data set" in annotate(tmp_path / "none", "-o", tmp_path / "out")[1]
    assert not (tmp_path / "out").exists()


def test_a_taken_port(answers: Path, tmp_path: Path, annotate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, err = annotate(answers, "-o", tmp_path / "out", "--port", other.getsockname()[1])
    assert code == 2
    assert "give another --port" in err


def test_without_the_extra_it_says_what_to_install(answers: Path, tmp_path: Path, annotate, monkeypatch) -> None:

    monkeypatch.setattr("judge_decoding.cli.checks.find_spec", lambda name: None)
    assert "judge-decoding[court]" in annotate(answers, "-o", tmp_path / "out")[1]


def test_a_draft_is_asked_for_where_the_head_reads_it(
    answers: Path, folders, tmp_path: Path, annotate, court: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JudgeHeadConfig(
        target=target_info(load_model(str(folders["target"]))), draft=target_info(load_model(str(folders["draft"])))
    )
    JudgeHead(config).save_pretrained(tmp_path / "head")
    models = ("--target", folders["target"], "--judge", tmp_path / "head")
    assert "--draft" in annotate(answers, "-o", tmp_path / "out", *models)[1]
    shown: list[object] = []
    serve = "judge_decoding.labelling.annotate.server.serve"
    monkeypatch.setattr(serve, lambda session, *_: shown.append(session.state()["case"]["choices"]))
    code, out, err = court(
        "annotate", answers, "-o", tmp_path / "out", *models, "--draft", folders["draft"], "--no-browser", "--port", 0
    )
    assert code == 0, err
    assert "Annotate at http://127.0.0.1:" in out
    assert shown[0]
