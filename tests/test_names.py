"""Names that mean something here mean it everywhere, and a name that cannot be had is told after one request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, get_session
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from commands import Run, is_one_sentence, the_sentence
from judge_decoding import JudgeDecoder, JudgeDecodingError, JudgeHead, PromptLookup
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.integrations.head_folder import generate_with_head
from judge_decoding.judge.target import target_info
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.names import EMBEDDED, NAMES, embedded_path, is_drafter, reserved_name
from judge_decoding.reference import pair
from tiny import greedy

PROMPT = "Q: Tom has 3 bags with 4 coins each. How many coins are there?\nA:"


def says(phrase: str, work: Callable[[], object]) -> None:
    """It is refused in one sentence with ``phrase`` in it."""
    with pytest.raises(JudgeDecodingError, match=phrase) as caught:
        work()
    assert "\n" not in str(caught.value)


# What they mean


@pytest.mark.parametrize(
    ("name", "role", "place"),
    [
        ("reference", "target", str(EMBEDDED["target"])),
        ("reference", "draft", str(EMBEDDED["draft"])),
        ("reference", "judge", str(EMBEDDED["judge"])),
        ("reference-draft", "target", str(EMBEDDED["draft"])),
        ("reference-draft", "draft", str(EMBEDDED["draft"])),
        ("prompt-lookup", "draft", "prompt-lookup"),
        ("me/mine", "target", "me/mine"),
        (Path("reference"), "target", Path("reference")),
        (None, "judge", None),
    ],
)
def test_a_name_has_a_place_by_what_it_is_named_for(name: Any, role: Any, place: Any) -> None:
    assert embedded_path(name, role) == place


def test_a_name_that_cannot_be_what_it_is_named_for_is_refused() -> None:
    says("prompt-lookup is a drafter, not a model; give it as the draft", lambda: load_model("prompt-lookup"))
    says("prompt-lookup is a drafter, not a model", lambda: JudgeDecoder.from_pretrained("prompt-lookup"))
    says("prompt-lookup is a drafter, not a judge", lambda: JudgeHead.from_pretrained("prompt-lookup"))
    says("reference-draft is a model, not a judge head", lambda: JudgeHead.from_pretrained("reference-draft"))


def test_the_embedded_target_comes_with_its_draft_and_judge() -> None:
    own = pair.load_pair()[0]
    assert own.judge is not None
    decoder = JudgeDecoder.from_pretrained("reference")
    assert isinstance(decoder.draft, PreTrainedModel)
    assert decoder.draft.config.hidden_size == own.draft.config.hidden_size  # type: ignore[union-attr]
    assert decoder.judge is not None
    assert decoder.judge.weights_hash == own.judge.weights_hash
    assert decoder.generate(PROMPT, 60).token_ids == own.generate(PROMPT, 60).token_ids
    looking = JudgeDecoder.from_pretrained("reference", "prompt-lookup")
    assert isinstance(looking.draft, PromptLookup)
    assert looking.judge is not None
    bare = JudgeDecoder.from_pretrained(EMBEDDED["target"])
    assert bare.draft is None
    assert bare.judge is None


def test_a_folder_of_such_a_name_is_reached_as_a_path(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").symlink_to(folders["target"], target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for name in (Path("reference"), "./reference"):
        assert JudgeDecoder.from_pretrained(name).target.config.vocab_size == 40
    assert load_model("reference").config.vocab_size != 40


def test_custom_generate_knows_the_names() -> None:
    target: Any = load_model("reference")
    tokenizer = load_tokenizer("reference")
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    want = pair.load_pair()[0].generate(PROMPT, 40).token_ids
    for draft in ("reference", str(EMBEDDED["draft"])):
        told = generate_with_head(
            target, inputs=ids, attention_mask=torch.ones_like(ids), draft=draft, judge="reference", max_new_tokens=40
        )
        assert tuple(told[0, ids.shape[1] :].tolist()) == want
    lookup = generate_with_head(
        target, inputs=ids, attention_mask=torch.ones_like(ids), draft="prompt-lookup", judge="reference",
        rule="exact", max_new_tokens=40,
    )  # fmt: skip
    assert lookup[0, ids.shape[1] :].tolist() == target.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40
    )[0, ids.shape[1] :].tolist()  # fmt: skip


def test_commands_know_the_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cases").write_text('{"question": "Q: What is 3 + 4?\\nA:", "answer": " It is 7."}\n')
    code, out, err = run("court", "stats", tmp_path / "cases", "--tokenizer", "reference", "--json")
    assert code == 0, err
    code, out, err = run("info", "reference", "--target", "reference")
    assert code == 0, err
    assert "yes, reference" in out
    is_one_sentence(run("score", tmp_path / "cases", "--target", "prompt-lookup"), "not a model; give it as the draft")
    fit = ("fit", "--prompts", tmp_path / "prompts", "--target", "reference", "--out", tmp_path / "head")
    (tmp_path / "prompts").write_text("".join(f"Q: What is {i} + 4?\nA:\n" for i in range(20)))
    assert "no tokens of its own to be labelled" in the_sentence(run(*fit, "--draft", "prompt-lookup"))
    train = ("train", "reference", tmp_path / "cases", "-o", tmp_path / "head", "--draft-states", "--draft")
    is_one_sentence(run(*train, "prompt-lookup"), "needs the draft model")
    assert not list(tmp_path.glob("head/*"))


@pytest.fixture
def of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a drafter that an installed package brings; to import the package is an error."""
    folder = tmp_path / "site" / "strange-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[judge_decoding.drafters]\nstrange-drafter = strange:Drafter\n")
    (folder.parent / "strange.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return "strange-drafter"


def test_a_drafter_of_another_package_is_no_model(of_another_package: str, run: Run, tmp_path: Path) -> None:
    name, cases, prompts = of_another_package, tmp_path / "cases", tmp_path / "prompts"
    assert is_drafter(name)
    assert not is_drafter("strange")
    assert embedded_path(name, "draft") == name
    says(f"{name} is a drafter, not a model; give it as the draft", lambda: load_model(name))
    says(f"{name} is a drafter, not a judge", lambda: JudgeHead.from_pretrained(name))
    cases.write_text('{"question": "Q: What is 3 + 4?\\nA:", "answer": " It is 7."}\n')
    prompts.write_text("".join(f"Q: What is {i} + 4?\nA:\n" for i in range(20)))
    head = tmp_path / "head"
    with_draft = ("--draft", name)
    fit = run("fit", "--prompts", prompts, "--target", "reference", "--out", head, *with_draft)
    assert f"{name} has no tokens of its own to be labelled" in the_sentence(fit)
    is_one_sentence(
        run("train", "reference", cases, "-o", head, "--draft-states", *with_draft), "needs the draft model"
    )
    is_one_sentence(
        run("generate", "reference", "x", "--translate", *with_draft),
        f"With the draft {name} there is no use for --translate",
    )
    assert not list(tmp_path.glob("head/*"))


# Names on the Hub


class Hub:
    """What the Hub answers to every request, and the requests."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.error = ""
        self.requests: list[str] = []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A Hub that can be asked; without a status it cannot be reached. No request leaves this process."""
    hub, client = Hub(), type(get_session())
    http = sys.modules[client.__module__.partition(".")[0]]  # httpx or httpx2

    def send(self: Any, request: Any, **_: Any) -> Any:
        if "/api/agent" not in str(request.url):  # asked by the library for itself, once a process
            hub.requests.append(f"{request.method} {request.url}")
        if hub.status is None:
            raise http.ConnectError("Name or service not known", request=request)
        return http.Response(hub.status, headers={"X-Error-Code": hub.error}, request=request)

    monkeypatch.setattr(client, "send", send)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return hub


LOADERS: dict[str, Callable[[str], object]] = {
    "decoder": JudgeDecoder.from_pretrained,
    "draft": lambda name: JudgeDecoder.from_pretrained("reference", draft=name),
    "judge": JudgeHead.from_pretrained,
    "model": load_model,
    "tokenizer": load_tokenizer,
    "custom_generate": lambda name: generate_with_head(load_model("reference"), draft=name, judge="reference"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_name_that_cannot_be_had_is_told_after_one_request(loader: str, hub: Hub) -> None:
    says("cannot be reached|that can be reached", lambda: LOADERS[loader]("me/nothing"))
    assert len(hub.requests) == 1
    hub.status, hub.error = 404, "RepoNotFound"
    says("no such repository|that can be reached", lambda: LOADERS[loader]("me/nothing"))
    assert len(hub.requests) == 2


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "name", ["./nothing", "a/b/c", "/no/such", "~/models/x", "../x", "what is this", "model.gguf", ""]
)
def test_a_path_that_is_not_there_is_told_without_a_request(loader: str, name: str, hub: Hub) -> None:
    with pytest.raises(JudgeDecodingError) as caught:
        LOADERS[loader](name)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


def test_names_of_our_own_and_files_ask_nobody(hub: Hub, folders: dict[str, Path], run: Run) -> None:
    JudgeDecoder.from_pretrained("reference", "prompt-lookup", "reference")
    JudgeDecoder.from_pretrained(folders["target"], folders["draft"], folders["judge"])
    file = folders["target"] / "config.json"
    says("it is a file; give its folder", lambda: load_model(file))
    is_one_sentence(run("generate", Path("nowhere") / "at" / "all", "one"), "there is no such folder")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (403, "GatedRepo", "only to those with access: ask at https://huggingface.co/me/mine and run hf auth login"),
        (404, "RevisionNotFound", "has no revision v7; check the revision"),
        (503, "", "the Hub answers 503"),
    ],
)
def test_what_the_hub_answers_is_told(status: int, error: str, sentence: str, hub: Hub) -> None:
    hub.status, hub.error = status, error
    says(sentence, lambda: load_model("me/mine", revision="v7"))
    assert len(hub.requests) == 1


@pytest.mark.parametrize("name", ["referense", "prompt_lookup", "Reference"])
def test_a_name_like_one_of_our_own_is_guessed(name: str, hub: Hub) -> None:
    says(rf"did you mean ({'|'.join(NAMES)})\?", lambda: load_model(name))


def test_without_a_network_what_was_fetched_is_loaded(
    hub: Hub, target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """One request a load, each of which fails at once, and no other."""
    commit = "0123456789" * 4
    stored = tmp_path / "hub" / "models--me--mine"
    target.save_pretrained(stored / "snapshots" / commit)
    tokenizer.save_pretrained(stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    decoder = JudgeDecoder.from_pretrained("me/mine")
    assert list(decoder.generate(torch.tensor([[5, 6, 7, 8]]), 12).token_ids) == greedy(
        target, [5, 6, 7, 8], 12, stop=True
    )
    assert len(hub.requests) == 2
    JudgeDecoder.from_pretrained("me/mine", local_files_only=True)
    assert len(hub.requests) == 2
    says("there is no copy of it in", lambda: load_model("me/other", local_files_only=True))
    assert len(hub.requests) == 2


def test_a_command_says_that_a_name_cannot_be_had(hub: Hub, run: Run) -> None:
    is_one_sentence(run("generate", "me/nothing", "one"), "the Hub cannot be reached")
    is_one_sentence(run("generate", "reference", "one", "--judge", "me/nothing"), "There is no judge head")
    assert len(hub.requests) == 2


def test_an_embedded_model_is_called_by_its_name_wherever_the_package_lies() -> None:
    assert target_info(load_model("reference"), HiddenSource(-1, "after")).name_or_path == "reference"
    assert reserved_name(str(EMBEDDED["draft"])) == "reference-draft"
    assert [reserved_name(name) for name in ("reference", "./reference", "org/model")] == [
        "reference", "./reference", "org/model",
    ]  # fmt: skip
