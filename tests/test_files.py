"""Files are written whole or not at all, and errors are one sentence."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from judge_decoding import Case, JudgeDecodingError, JudgeHead, write_cases
from judge_decoding.io.files import check_writable, read_text, replacing, write_json, write_text


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: the system refuses to let a file grow beyond ``size`` bytes."""
    resource = pytest.importorskip("resource", reason="this system has no limits")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writing_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "one")
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_text(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert (stat.S_IMODE(path.stat().st_mode), path.read_text()) == (mode, "new")


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file, link, chain = tmp_path / "far" / "x.txt", tmp_path / "link", tmp_path / "chain"
    link.symlink_to("far/x.txt")
    chain.symlink_to(link)
    for text in ("made", "replaced"):  # at first the link leads to nothing
        check_writable(chain)
        write_text(chain, text)
        assert (chain.is_symlink(), link.is_symlink(), file.is_symlink()) == (True, True, False)
        assert file.read_text() == text
    assert {path.name for path in tmp_path.rglob("*")} == {"far", "x.txt", "link", "chain"}


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    check_writable(Path("/dev/null"))
    write_text(Path("/dev/null"), "x")
    assert Path("/dev/null").is_char_device()
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    check_writable(pipe)  # and a reader that waits does not take that for the end
    reader = Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    check_writable(pipe)
    write_text(pipe, "through it")
    reader.join(10)
    assert got == [b"through it"]
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "link"])
def test_standard_output_goes_on(tmp_path: Path, name: str) -> None:
    """Where it is a file, it is that file that goes on, behind what is in it."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = (
        "from pathlib import Path; from judge_decoding.io.files import check_writable, write_text; print('before');"
        f"path = Path({name!r}); check_writable(path); write_text(path, 'it\\n'); print('after')"
    )
    with (tmp_path / "all.txt").open("w") as file:
        file.write("first\n")
        file.flush()
        subprocess.run([sys.executable, "-c", program], stdout=file, cwd=tmp_path, check=True)
    assert (tmp_path / "all.txt").read_text() == "first\nbefore\nit\nafter\n"


def test_a_place_is_tried_and_not_asked_for_its_rights(tmp_path: Path) -> None:
    """Root may write everywhere by its rights: these places say no all the same."""
    for path in (Path("/proc/1/new"), Path("/sys/kernel/new"), tmp_path / ("long" * 100)):
        with pytest.raises(JudgeDecodingError):
            check_writable(path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(JudgeDecodingError):
        check_writable(tmp_path / "loop")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_json_is_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": ["é", 1]})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": [\n    "é",\n    1\n  ]\n}\n'


def test_nothing_is_left_when_the_work_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def work() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    write_cases(path, [Case(question="a", answer="b")])
    before = path.read_bytes()
    with files_of_at_most(100), pytest.raises(JudgeDecodingError):
        write_cases(path, [Case(question="a", answer="b")] * 1000)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cases.jsonl"]


def test_a_full_disk_stops_a_head_with_a_sentence(head: JudgeHead, tmp_path: Path) -> None:
    with files_of_at_most(100), pytest.raises(JudgeDecodingError):
        head.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(JudgeDecodingError):
            write_text(path, "x")
        with pytest.raises(JudgeDecodingError):
            check_writable(path)
    with pytest.raises(JudgeDecodingError):
        write_text(Path("/proc/nothing/x.txt"), "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_places_that_can_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "x.txt")
    check_writable(tmp_path / "x.txt")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(JudgeDecodingError, match=r"Cannot read the thing .*nothing: No such file"):
        read_text(tmp_path / "nothing", "the thing")
    with pytest.raises(JudgeDecodingError, match="Cannot read the thing"):
        read_text(tmp_path, "the thing")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(JudgeDecodingError):
        read_text(tmp_path / "latin", "the thing")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_can_only_be_read_shows_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = (
        f"mount -t tmpfs none {tmp_path}/disk && touch {tmp_path}/disk/there && mount -o remount,ro {tmp_path}/disk && "
        f'exec {sys.executable} -c "$1" {tmp_path}/disk'
    )
    program = """
import sys
from pathlib import Path
from judge_decoding import JudgeDecodingError
from judge_decoding.io.files import check_writable
from judge_decoding.io.locks import one_run
for name in ("new", "there", "new/deep/x"):
    for check in (check_writable, lambda path: one_run(path).__enter__()):
        try:
            check(Path(sys.argv[1], name))
        except JudgeDecodingError as error:
            print(error)
"""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", program], capture_output=True, text=True, check=False
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    told = done.stdout.splitlines()
    assert len(told) == 6, done
    assert all("Read-only file system; choose another place." in line for line in told)


def test_a_descriptor_is_tried(tmp_path: Path) -> None:
    """One that is open to be read only, or not open at all, is no place to write to."""
    (tmp_path / "x").write_text("")
    with (tmp_path / "x").open("rb") as file, pytest.raises(JudgeDecodingError, match="Cannot write /dev/fd/"):
        check_writable(Path(f"/dev/fd/{file.fileno()}"))
    with (tmp_path / "x").open("wb") as file:
        check_writable(Path(f"/dev/fd/{file.fileno()}"))


def test_a_socket_is_no_place_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(JudgeDecodingError):
            check_writable(tmp_path / "s")


def test_folders_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    def work() -> None:
        with replacing(tmp_path / "a" / "b" / "x"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
