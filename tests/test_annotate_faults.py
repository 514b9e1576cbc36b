"""The annotation server in trouble: clients that stay or leave, a full disk, a folder that several users share."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from commands import Run
from judge_decoding import Case, JudgeDecodingError, read_cases, write_cases
from judge_decoding.labelling.annotate.reading import ReadingModels, read_answers
from judge_decoding.labelling.annotate.server import kept_token, make_app
from judge_decoding.labelling.annotate.session import Decision, Session
from judge_decoding.labelling.annotate.storage import token_path
from judge_decoding.web import connections
from judge_decoding.web.connections import DeadlineProtocol
from judge_decoding.web.serving import listen

TOKEN = "0123456789abcdef" * 2
SOON = 0.4
"""The server's patience in these tests, in seconds."""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    cases = [Case(question=f"q{i}", answer="a b") for i in range(5)]
    with (session := Session(cases, tmp_path, "ann", repeats=0)).log:
        yield session


@pytest.fixture
def port(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server as the command starts it, with little patience."""
    monkeypatch.setattr(connections, "PATIENCE", SOON)
    monkeypatch.setattr(connections, "MOST", 10)
    with listen(0) as listener:
        config = uvicorn.Config(
            make_app(session, TOKEN), http=DeadlineProtocol, lifespan="off", ws="none", log_level="warning",
            timeout_keep_alive=30,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def head(method: str, path: str, port: int, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def decide(port: int, length: int) -> bytes:
    return head("POST", "/decide", port, f"Origin: http://127.0.0.1:{port}", f"Content-Length: {length}")


def state(port: int, client: socket.socket) -> dict[str, Any]:
    """What the page asks for, over a connection that stays open."""
    client.sendall(head("GET", "/state", port))
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        answer += client.recv(65536)
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def held(client: socket.socket) -> float:
    """Seconds until the server hangs up."""
    client.settimeout(20)
    begin = time.monotonic()
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begin


HALVES: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda port: b"",
    "half a line": lambda port: b"GET /sta",
    "half a head": lambda port: head("GET", "/state", port)[:-2],
    "no body": lambda port: decide(port, 100),
    "half a body": lambda port: decide(port, 100) + b"{",
    "a chunk that does not come": lambda port: (
        head("POST", "/decide", port, f"Origin: http://127.0.0.1:{port}", "Transfer-Encoding: chunked") + b"5\r\n{"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_half_a_request_is_not_waited_for(port: int, half: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HALVES[half](port))
        assert SOON / 2 < held(client) < 5 * SOON
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert state(port, client)["done"] == 0
    assert capfd.readouterr().err == ""


def test_a_client_that_trickles_is_not_waited_for(port: int) -> None:
    """A byte now and then does not buy more time."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        begin = time.monotonic()
        with suppress(ConnectionError):
            for byte in head("GET", "/state", port)[:-2]:
                client.sendall(bytes([byte]))
                time.sleep(SOON / 20)
        assert time.monotonic() - begin < 5 * SOON


@pytest.mark.slow
def test_half_a_second_request_is_not_waited_for_and_an_idle_page_is(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert state(port, client)["done"] == 0
        time.sleep(2 * SOON)  # between two requests uvicorn's own time counts
        assert state(port, client)["done"] == 0
        client.sendall(b"GET /sta")
        assert held(client) < 5 * SOON


def test_only_so_many_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 5.0)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    time.sleep(0.3)
    open_ones = 0
    for client in clients:
        client.setblocking(False)
        try:
            client.recv(1)
        except BlockingIOError:
            open_ones += 1
        except ConnectionError:
            pass
    assert open_ones == 10
    for client in clients:
        client.close()
    time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert state(port, client)["done"] == 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("half", [name for name in HALVES if "head" not in name])
def test_a_client_that_leaves_is_not_worth_a_word(
    port: int, half: str, reset: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(HALVES[half](port))
    time.sleep(0.1)
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", port)) as other:
        assert state(port, other)["done"] == 0
    assert capfd.readouterr() == ("", "")


# A full disk


class Full:
    """While it is on, nothing that ends so can be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ending = ""
        write_text, write = Path.write_text, os.write
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def text(path: Path, *args: Any, **more: Any) -> int:
            if self.ending and self.ending in path.name:
                raise error
            return write_text(path, *args, **more)

        def raw(handle: int, data: bytes) -> int:
            if self.ending and self.ending in str(Path(f"/proc/self/fd/{handle}").readlink()):
                if len(data) > 20:
                    return write(handle, data[:20])  # what there is room for
                raise error
            return write(handle, data)

        monkeypatch.setattr(Path, "write_text", text)
        monkeypatch.setattr(os, "write", raw)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


def correct(session: Session, number: int) -> Decision:
    return Decision(action="correct", turn=len(session.log.events), key=f"key number {number}")


def agree(session: Session) -> bool:
    """Whether what is on the disk is the decisions, once as a log and once as cases."""
    lines = session.log.path.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [event.key for event in session.log.events]
    return session.cases_path.exists() and len(read_cases(session.cases_path)) == len(lines)


def test_after_a_full_disk_the_page_tells_and_log_and_cases_agree(session: Session, full: Full) -> None:
    client = TestClient(
        make_app(session, TOKEN), base_url="http://127.0.0.1:1", headers={"Origin": "http://127.0.0.1:1"}
    )
    client.headers["Authorization"] = f"Bearer {TOKEN}"

    def post(number: int) -> dict[str, Any]:
        reply = client.post("/decide", content=correct(session, number).model_dump_json())
        assert reply.status_code == 200
        return reply.json()

    assert post(0)["problem"] == ""
    assert agree(session)
    full.ending = "cases-ann"
    told = post(1)
    assert (told["done"], told["turn"]) == (2, 2)  # the decision itself is saved
    assert "Your decisions are saved" in told["problem"]
    assert "No space left on device" in told["problem"]
    assert told["problem"].endswith(".")
    assert not agree(session)
    assert client.get("/state").json()["problem"] == told["problem"]
    full.ending = ""
    assert client.get("/state").json()["problem"] == ""
    assert agree(session)
    full.ending = "cases-ann"
    assert post(2)["problem"]
    full.ending = ""
    assert post(3)["problem"] == ""
    assert agree(session)
    assert not [path for path in session.cases_path.parent.iterdir() if path.name.startswith(".")]


def test_on_a_disk_with_no_room_for_the_decision_nothing_of_it_stays(session: Session, full: Full) -> None:
    session.decide(correct(session, 0))
    full.ending = "decisions-ann"
    with pytest.raises(JudgeDecodingError, match="make room and try again"):
        session.decide(correct(session, 1))
    assert agree(session)
    full.ending = ""
    session.decide(correct(session, 1))
    assert len(session.log.events) == 2
    assert agree(session)


def test_what_is_missing_comes_with_the_next_start(session: Session, full: Full, tmp_path: Path) -> None:
    full.ending = "cases-ann"
    session.decide(correct(session, 0))
    assert session.problem
    session.log.close()
    full.ending = ""
    cases = [Case(question=f"q{i}", answer="a b") for i in range(5)]
    with (again := Session(cases, tmp_path, "ann", repeats=0)).log:
        assert agree(again)
    session.log._file = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


# A folder that several users share


def as_user(number: int, act: Callable[[], object]) -> str:
    """What ``act`` gives, or the error it ends with, as another user, who could not even start this Python anew."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child calls what is loaded already
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            told = str(act())
        except BaseException as error:  # noqa: BLE001  (the parent is told)
            told = repr(error)
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return told


ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@ROOT
def test_each_user_of_a_shared_folder_has_a_token(shared: Path) -> None:
    mine = kept_token(shared)
    others = {number: as_user(number, lambda: kept_token(shared)) for number in (12345, 12346)}
    assert others == {number: as_user(number, lambda: kept_token(shared)) for number in others}
    assert len({mine, *others.values()}) == 3
    assert {len(token) for token in others.values()} == {32}
    assert kept_token(shared) == mine
    found = {path.stat().st_uid: path.stat() for path in shared.glob("token*")}
    assert found.keys() == {0, 12345, 12346}
    assert {stat.S_IMODE(one.st_mode) for one in found.values()} == {0o600}
    assert "PermissionError" in as_user(12345, token_path(shared).read_text)


@ROOT
def test_a_token_that_somebody_else_put_there_is_not_used(shared: Path) -> None:
    planted = "e" * 32
    token_path(shared).write_text(planted)
    os.chown(token_path(shared), 12345, 12345)
    token_path(shared).chmod(0o600)
    assert kept_token(shared) != planted


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes and links there")
@pytest.mark.parametrize("kind", ["readable", "link", "pipe", "short"])
def test_a_token_file_that_is_not_private_is_made_anew(tmp_path: Path, kind: str) -> None:
    planted, path = "e" * 32, token_path(tmp_path)
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text(planted)
        (tmp_path / "elsewhere").chmod(0o600)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text(planted if kind == "readable" else "e")
        path.chmod(0o644 if kind == "readable" else 0o600)
    token = kept_token(tmp_path)
    assert token != planted
    assert len(token) == 32
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert kept_token(tmp_path) == token
    if kind == "link":
        assert (tmp_path / "elsewhere").read_text() == planted


@ROOT
def test_a_second_user_annotates_in_the_folder_of_a_first_one(
    shared: Path, folders: dict[str, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judge_decoding.labelling.annotate.server.serve", lambda _, listener, __: listener.close())
    answers = shared / "answers.jsonl"
    write_cases(answers, [Case(question="one two", answer=" good cat")])
    (shared / "out").mkdir()
    (shared / "out").chmod(0o777)
    args = ("court", "annotate", answers, "-o", shared / "out", "--no-browser", "--port", 0)
    assert run(*args, "--annotator", "ann", "--target", folders["target"])[0] == 0
    assert [path.name for path in (shared / "out").glob("target*")] == ["target-0.jsonl"]
    told = as_user(12345, lambda: run(*args, "--annotator", "bob"))
    assert told.startswith("(0, "), told
    assert "0 cases labelled" in told
    # What the first user's target has read is there for the second; the model itself is not asked again.
    monkeypatch.setattr("judge_decoding.labelling.annotate.reading.load_model", None)
    reader = ReadingModels(str(folders["target"]))
    assert as_user(12345, lambda: len(read_answers(read_cases(answers), reader, shared / "out"))) == "1"
