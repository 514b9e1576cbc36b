"""Heads go to the Hub: files, arguments and refusals, on a Hub that runs on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from transformers import LlamaForCausalLM

import hub as fake
from commands import Run, is_one_sentence
from judge_decoding import JudgeDecodingError, JudgeHead, push_head, save_head
from judge_decoding.report import push as module
from test_card import FULL, changed
from tiny import random_head

CUSTOM = ["custom_generate/generate.py", "custom_generate/requirements.txt"]
OWN = sorted(["README.md", "config.json", "model.safetensors", *CUSTOM])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fake.Hub]:
    with fake.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", fake.TOKEN)
        yield running


@pytest.fixture
def head(target: LlamaForCausalLM) -> JudgeHead:
    """One of its own: the tests change it."""
    return random_head(target)


@pytest.fixture
def folder(head: JudgeHead, tmp_path: Path) -> Path:
    head.config.target.name_or_path = "org/target"
    save_head(head, tmp_path / "judge", {"roc.svg": "<svg/>"}, changed(judge_hash=head.weights_hash))
    (tmp_path / "judge" / "run.yaml").write_text("seed: 1\n")
    (tmp_path / "judge" / "secret.txt").write_text("not for the Hub")
    return tmp_path / "judge"


def content(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_a_folder_is_uploaded_as_it_is_and_loads_by_name(hub: fake.Hub, folder: Path) -> None:
    assert push_head(folder, "me/judge") == f"{hub.url}/me/judge"
    assert hub.repos == {
        "me/judge": {"main": content(folder, *OWN, "run.yaml", "roc.svg", "results.json", "pareto.svg")}
    }  # and no secret.txt
    assert (hub.private, hub.commits) == ({"me/judge": False}, 1)
    card = ModelCard(hub.repos["me/judge"]["main"]["README.md"].decode()).data.to_dict()
    assert (card["library_name"], card["base_model"]) == ("judge-decoding", "org/target")
    assert card["tags"] == ["judge-decoding", "speculative-decoding", "custom_generate"]
    back = JudgeHead.from_pretrained("me/judge")
    assert torch.equal(back.linear.weight, JudgeHead.from_pretrained(folder).linear.weight)


def test_a_head_is_uploaded_with_its_full_card(hub: fake.Hub, head: JudgeHead) -> None:
    push_head(head, "me/judge", results=[FULL])
    files = hub.repos["me/judge"]["main"]
    assert sorted(files) == sorted([*OWN, "pareto.svg", "results.json"])
    assert "### gsm8k" in files["README.md"].decode()


def test_what_was_of_an_earlier_head_goes_and_the_rest_stays(hub: fake.Hub, folder: Path, head: JudgeHead) -> None:
    push_head(folder, "me/judge")
    hub.repos["me/judge"]["main"] |= {"results-2.json": b"{}", "LICENSE": b"mine", ".gitattributes": b""}
    head.save_pretrained(folder)
    for name in ("roc.svg", "results.json", "pareto.svg"):
        (folder / name).unlink(missing_ok=True)
    push_head(folder, "me/judge")
    expected = content(folder, *OWN) | {"LICENSE": b"mine", ".gitattributes": b""}
    assert hub.repos["me/judge"]["main"] == expected


def test_a_branch_is_made_and_the_main_one_stays(hub: fake.Hub, head: JudgeHead, folder: Path) -> None:
    push_head(folder, "me/judge")
    before = dict(hub.repos["me/judge"]["main"])
    head.config.threshold = 0.125
    for _ in range(2):  # new, then there
        push_head(head, "me/judge", revision="next")
        assert json.loads(hub.repos["me/judge"]["next"]["config.json"])["threshold"] == 0.125
        assert hub.repos["me/judge"]["main"] == before


def test_a_private_head_never_goes_to_a_public_repository(hub: fake.Hub, folder: Path) -> None:
    push_head(folder, "me/hidden", private=True)
    push_head(folder, "me/hidden", private=True)
    assert hub.private == {"me/hidden": True}
    push_head(folder, "me/open")
    with pytest.raises(JudgeDecodingError, match=r"^Cannot upload to me/open: it exists and is public; "):
        push_head(folder, "me/open", private=True)
    hub.repos["me/open"]["main"].clear()
    with pytest.raises(JudgeDecodingError, match="public"):
        push_head(folder, "me/open", private=True)
    assert hub.repos["me/open"]["main"] == {}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("create", 401, "does not accept the token; run hf auth login"),
        ("create", 403, "the token may not write there; check the name"),
        ("commit", 403, "the token may not write there"),
        ("create", 500, "the Hub answers 500: down; try again later."),
        ("commit", 400, "the Hub answers 400: down; check the name and the branch."),
        ("validate-yaml", 400, "the Hub refuses the files"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    run: Run, hub: fake.Hub, folder: Path, path: str, status: int, said: str
) -> None:
    hub.refusals[path] = (status, "down")
    code, _, err = run("push", folder, "me/judge", "--yes")
    is_one_sentence((code, "", err), said)
    assert err.startswith("Error: Cannot upload to me/judge: ")
    assert hub.commits == 0


def test_without_token_or_network_nothing_is_requested(
    run: Run, hub: fake.Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_token", lambda: None)
    is_one_sentence(run("push", folder, "me/judge", "--yes"), "there is no token for the Hub; run hf auth login")
    monkeypatch.setattr(module, "get_token", lambda: fake.TOKEN)
    monkeypatch.setattr(module, "is_offline_mode", lambda: True)
    is_one_sentence(run("push", folder, "me/judge", "--yes"), "HF_HUB_OFFLINE is set; unset it.")
    monkeypatch.setattr(module, "is_offline_mode", lambda: False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    is_one_sentence(run("push", folder, "me/judge", "--yes"), "the Hub cannot be reached; check the network.")
    assert hub.repos == {}


def test_the_command_uploads_and_says_where(run: Run, hub: fake.Hub, folder: Path) -> None:
    code, out, err = run("push", folder, "me/judge", "--yes", "--private", "--revision", "v1")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("Uploaded 9 files (")
    assert out.endswith(f" to the private me/judge, branch v1: {hub.url}/me/judge\n")
    assert "secret.txt" not in out
    assert sorted(hub.repos["me/judge"]["v1"]) == sorted([*OWN, "pareto.svg", "results.json", "roc.svg", "run.yaml"])
    code, out, err = run("push", folder, "judge", "--yes", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    sizes = {one["name"]: one["bytes"] for one in told.pop("files")}
    assert told == {
        "url": f"{hub.url}/me/judge", "repo_id": "judge", "revision": None, "private": False, "dry_run": False,
    }  # fmt: skip
    assert sizes == {name: len(data) for name, data in hub.repos["me/judge"]["main"].items()}


def test_a_dry_run_needs_neither_network_nor_token(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> str:
        raise AssertionError

    monkeypatch.setattr(module, "upload", never)
    code, out, err = run("push", folder, "me/judge", "--dry-run")
    assert (code, err) == (0, "")
    *files, last = out.splitlines()
    assert [line.split()[-1] for line in files] == [
        "config.json", "model.safetensors", "run.yaml", "roc.svg", *CUSTOM, "README.md", *files_of_results(files),
    ]  # fmt: skip
    assert last.startswith("Would upload 9 files (")
    assert last.endswith(" to me/judge; nothing is uploaded.")
    told = json.loads(run("push", folder, "me/judge", "--dry-run", "--json")[1])
    assert told["dry_run"] is True
    assert {one["name"]: one["bytes"] for one in told["files"]}["roc.svg"] == len("<svg/>")


def files_of_results(lines: list[str]) -> list[str]:
    """The result files in the order in which they are listed, which is the file system's."""
    names = [line.split()[-1] for line in lines]
    return sorted(set(names) & {"results.json", "pareto.svg"}, key=names.index)


def test_what_cannot_be_pushed_is_one_sentence(run: Run, hub: fake.Hub, folder: Path, tmp_path: Path) -> None:
    is_one_sentence(run("push", folder, "a/b/c", "--yes"), "'a/b/c' is not a repository name; give one such as")
    code, out, err = run("push", folder, "me/judge")
    is_one_sentence((code, "", err), "Nobody is there to confirm the upload; add --yes.")
    assert "model.safetensors" in out
    card = folder / "README.md"
    good = card.read_text()
    for text, said in {
        good.replace("base_model: org/target\n", ""): "README.md has no base_model in its front matter; write the card",
        good.replace("library_name: judge-decoding\n", ""): "README.md has no library_name",
        "# My head\n": "README.md has no library_name",
        "---\n- a\n---\n": "README.md has no valid front matter; write the card anew",
        "---\na: [\n---\n": "README.md has no valid front matter",
    }.items():
        card.write_text(text)
        is_one_sentence(run("push", folder, "me/judge", "--yes"), said)
    card.unlink()
    is_one_sentence(run("push", folder, "me/judge", "--yes"), "Cannot read the model card")
    with pytest.raises(JudgeDecodingError, match="A folder is uploaded with the results in it"):
        push_head(folder, "me/judge", results=[FULL])
    assert hub.repos == {}
