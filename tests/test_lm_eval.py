"""The lm-evaluation-harness, the real one, on small tasks of its own form, without a network."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file, save_file

from commands import Run
from judge_decoding import Exact, JudgeDecodingError, Stats, VerificationRule, parse_rule
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.integrations.lm_eval import JudgeLM  # which registers the model
from judge_decoding.reference import pair, problems
from judge_decoding.reference.problems import draw_many

pytestmark = pytest.mark.slow

PROBLEMS = draw_many(0, "test", 3)
MODELS = {"pretrained": str(pair.TARGET), "draft": str(pair.DRAFT), "judge": str(pair.JUDGE)}
TARGET = {"pretrained": str(pair.TARGET)}
FOLDER = {"custom_generate": str(pair.JUDGE), "trust_remote_code": True, "draft": str(pair.DRAFT)}
STOP = "."
"""A stop string that comes early in every answer, so that rounds go beyond it."""


def write_tasks(folder: Path) -> None:
    """`words` asks for whole answers, `openings` for what comes before a stop string, `choices` for nothing."""
    rows = [{"prompt": pair.prompt_of(p), "answer": str(p.answer), "choices": ["7", str(p.answer)]} for p in PROBLEMS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
    }
    generate = {
        **common,
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [{"name": "last", "filter": [
            {"function": "regex", "regex_pattern": "(\\d+)", "group_select": -1}, {"function": "take_first"},
        ]}],
    }  # fmt: skip
    tasks: dict[str, dict[str, Any]] = {
        "words": generate | {"generation_kwargs": {"until": ["\n\n"], "max_gen_toks": problems.MAX_NEW_TOKENS}},
        "openings": generate | {"generation_kwargs": {"until": [STOP], "max_gen_toks": problems.MAX_NEW_TOKENS}},
        "choices": {
            **common, "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": 1,
        },
    }  # fmt: skip
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    write_tasks(made)
    return made


@pytest.fixture(scope="module")
def decoder() -> JudgeDecoder:
    return pair.load_pair()[0]


@dataclass(frozen=True)
class Outcome:
    """What the harness says: answers in the problems' order, accuracy, and the counts, if there are any."""

    answers: list[str]
    accuracy: float
    counts: dict[str, Any]


@pytest.fixture(scope="module")
def ask(folder: Path) -> Any:
    manager = TaskManager(include_path=str(folder), include_defaults=False)

    def asked(
        model: str, arguments: dict[str, Any], task: str = "words", batch_size: int = 1, **options: Any
    ) -> Outcome:
        results = simple_evaluate(
            model=model, model_args=arguments, tasks=[task], task_manager=manager, device="cpu", batch_size=batch_size,
            bootstrap_iters=0, **options,
        )  # fmt: skip
        samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
        metric = "acc,none" if task == "choices" else "exact_match,last"
        return Outcome(
            [str(sample["resps"][0][0]) for sample in samples],
            results["results"][task][metric],
            results["config"].get("judge_decoding", {}),
        )

    return asked


@pytest.fixture(scope="module")
def plain(ask: Any) -> dict[str, Outcome]:
    """The harness's own model, on each task."""
    return {task: ask("hf", TARGET, task) for task in ("words", "openings", "choices")}


def own(decoder: JudgeDecoder, rule: VerificationRule | None, stop: str = "\n\n") -> list[Generation]:
    """What this package's decoder says to the same prompts."""
    return [
        decoder.generate(pair.prompt_of(problem), problems.MAX_NEW_TOKENS, rule=rule, stop=stop) for problem in PROBLEMS
    ]


def counted(answers: list[Generation]) -> dict[str, Any]:
    stats = Stats.of(event for answer in answers for event in answer.rounds)
    counts = stats.to_dict()
    del counts["seconds"]
    return counts


@pytest.mark.parametrize("batch_size", [1, 4])
def test_at_threshold_1_the_answers_are_those_of_hf(
    ask: Any, plain: dict[str, Outcome], decoder: JudgeDecoder, batch_size: int
) -> None:
    found = ask("judge", {**MODELS, "threshold": 1.0}, batch_size=batch_size)
    assert found.answers == plain["words"].answers
    assert found.accuracy == plain["words"].accuracy > 0
    assert found.counts["rescued"] == 0
    assert found.counts["accepted_per_round"] > 1


@pytest.mark.parametrize("batch_size", [4])
def test_the_counts_are_those_of_the_packages_own_decoder(ask: Any, decoder: JudgeDecoder, batch_size: int) -> None:
    found = ask("judge", MODELS, batch_size=batch_size)
    expected = own(decoder, None)
    assert found.answers == [one.text for one in expected]
    about = {name: found.counts.pop(name) for name in ("draft", "judge", "rule", "num_draft_tokens")}
    assert found.counts == counted(expected)
    assert found.counts["rescued"] > 0
    assert about == {
        "draft": str(pair.DRAFT), "judge": str(pair.JUDGE), "rule": "judge(threshold=0.95)",
        "num_draft_tokens": decoder.num_draft_tokens,
    }  # fmt: skip


def test_rules_drafts_and_draft_lengths_are_chosen_by_arguments(ask: Any, decoder: JudgeDecoder) -> None:
    found = ask("judge", {**MODELS, "rule": "top_k(k=2)", "num_draft_tokens": 5})
    expected = [
        decoder.generate(pair.prompt_of(p), problems.MAX_NEW_TOKENS, rule=parse_rule("top_k(k=2)"), num_draft_tokens=5)
        for p in PROBLEMS
    ]
    assert found.answers == [one.text for one in expected]
    assert found.counts["rescued_by"] == {"top_k": counted(expected)["rescued"]}
    assert (found.counts["rule"], found.counts["num_draft_tokens"]) == ("top_k(k=2)", 5)
    lookup = ask("judge", {**TARGET, "draft": "prompt-lookup"})
    assert lookup.answers == [one.text for one in own(decoder, Exact())]
    assert lookup.counts["rule"] == "exact"
    assert lookup.counts["agreed"] > 0


@pytest.mark.parametrize("batch_size", [4])
def test_a_heads_folder_works_in_the_harness_as_it_is(
    ask: Any, plain: dict[str, Outcome], decoder: JudgeDecoder, batch_size: int
) -> None:
    """Model hf, and the folder as an argument of generation: nothing of this package is named."""
    exact = ask("hf", TARGET, batch_size=batch_size, gen_kwargs={**FOLDER, "threshold": 1})
    assert exact.answers == plain["words"].answers
    judged = ask("hf", TARGET, batch_size=batch_size, gen_kwargs=FOLDER)
    assert judged.answers == [one.text for one in own(decoder, None)]
    assert judged.answers != exact.answers


@pytest.mark.parametrize("batch_size", [4])
def test_stop_strings_end_each_answer(
    ask: Any, plain: dict[str, Outcome], decoder: JudgeDecoder, batch_size: int
) -> None:
    exact = ask("judge", {**MODELS, "threshold": 1.0}, "openings", batch_size)
    assert exact.answers == plain["openings"].answers != plain["words"].answers
    judged = ask("judge", MODELS, "openings", batch_size)
    expected = own(decoder, None, STOP)
    assert judged.answers == [one.text.split(STOP)[0] for one in expected]
    # Nothing was decoded behind the stop string.
    assert judged.counts["tokens"] == sum(len(one.token_ids) for one in expected)
    through_folder = ask("hf", TARGET, "openings", batch_size, gen_kwargs=FOLDER)
    assert through_folder.answers == judged.answers


def test_sampling_repeats_by_the_harness_seed(ask: Any, plain: dict[str, Outcome]) -> None:
    options = {"task": "openings", "gen_kwargs": {"do_sample": True, "temperature": 1.5}, "batch_size": 4}
    first, second = (ask("judge", {**MODELS, "threshold": 1.0}, **options) for _ in range(2))
    assert first == second
    assert first.answers != plain["openings"].answers


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the harness shows: its logger hands nothing on to others."""
    logger = logging.getLogger("lm_eval")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_tasks_that_generate_nothing_run_as_in_hf_and_say_so(
    ask: Any, plain: dict[str, Outcome], logged: pytest.LogCaptureFixture
) -> None:
    found = ask("judge", {**MODELS, "threshold": 0.0}, "choices")
    assert found.answers == plain["choices"].answers
    assert found.accuracy == plain["choices"].accuracy
    assert found.counts["tokens"] == 0
    assert "choose tasks that generate" in logged.text
    logged.clear()
    ask("judge", MODELS, "openings")
    assert "choose tasks that generate" not in logged.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draft": None}, r"The model judge needs a draft; give .* or use the model hf"),
        ({"draft": "FOREIGN"}, r"Target and draft have different vocabularies .* translate=True"),
        ({"draft": "/nowhere"}, r"Cannot load the tokenizer /nowhere"),
        ({"judge": "/nowhere"}, r"/nowhere"),
        ({"judge": "FOREIGN HEAD"}, r"trained for"),
        ({"rule": "tip_k(k=2)"}, r"There is no rule tip_k .*top_k"),
        ({"rule": "top_k(k=2)", "threshold": 0.5}, r"Give either a rule or the judge's threshold, not both"),
        ({"threshold": 1.5}, r"threshold is 1.5"),
        ({"judge": None, "threshold": 0.5}, r"A threshold needs a judge"),
        ({"treshold": 0.5}, r"There is no model argument treshold \(did you mean threshold\?\)"),
        ({"num_draft_tokens": "abc"}, r"The model argument num_draft_tokens is 'abc'; it must be a whole number"),
        ({"threshold": "high"}, r"threshold is 'high'; it must be a number"),
        ({"rule": 5}, r"rule is 5; it must be a text"),
        ({"judge": 5}, r"judge is 5; it must be a name or folder"),
        ({"translate": "maybe"}, r"translate is 'maybe'; it must be True or False"),
        ({"num_draft_tokens": 0}, r"num_draft_tokens is 0; it must be 1 or more"),
        ({"pretrained": "/nowhere"}, r"Cannot load the model /nowhere"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(
    ask: Any, folders: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    foreign = {"FOREIGN": str(folders["draft"]), "FOREIGN HEAD": str(folders["judge"])}
    arguments = {**MODELS, **{name: foreign.get(value, value) for name, value in change.items()}}
    with pytest.raises(JudgeDecodingError, match=message) as caught:
        ask("judge", arguments)
    assert "\n" not in str(caught.value)


def test_the_command_is_the_harness_with_the_model(
    run: Run, folder: Path, plain: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The harness reads the thousands of tasks that it brings, which takes longer than all else.
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    models = ",".join(f"{name}={value}" for name, value in MODELS.items())
    code, out, _ = run(
        "lm-eval", "--model", "judge", "--model_args", f"{models},threshold=1", "--tasks", "words", "--include_path",
        folder, "--device", "cpu", "--batch_size", 3, "--output_path", folder / "out", "--log_samples",
    )  # fmt: skip
    assert code == 0
    assert "|words|" in out
    (written,) = (folder / "out").rglob("results_*.json")
    results = json.loads(written.read_text(encoding="utf-8"))
    assert results["results"]["words"]["exact_match,last"] == plain["words"].accuracy
    assert results["config"]["judge_decoding"]["rule"] == "judge(threshold=1)"
    assert results["config"]["judge_decoding"]["accepted_per_round"] > 1
    (written,) = (folder / "out").rglob("samples_words_*.jsonl")
    samples = sorted(map(json.loads, written.read_text(encoding="utf-8").splitlines()), key=lambda row: row["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == plain["words"].answers


def test_the_command_hands_on_help(run: Run) -> None:
    code, out, _ = run("lm-eval", "run", "--help")
    assert code == 0
    assert "--include_path" in out


def test_without_the_harness_the_command_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("judge_decoding.integrations.lm_eval", "judge_decoding.cli.lm_eval"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    code, out, err = run("lm-eval", "--model", "judge")
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"Error: The lm-evaluation-harness is not installed \(lm_eval\S* is missing\); install it with: "
        r"pip install 'judge-decoding\[eval\]'\.\n", err,
    )  # fmt: skip


def test_the_embedded_pair_is_known_by_its_name() -> None:
    model = JudgeLM(pretrained="reference", device="cpu")
    own = pair.load_pair()[0]
    assert torch.equal(model.model.lm_head.weight, own.target.lm_head.weight)
    assert model.get_model_info()["judge_decoding"]["draft"] == "reference"
    assert model.get_model_info()["judge_decoding"]["judge"] == "reference"


def test_a_target_that_lacks_weights_or_brings_code_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["target"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    arguments: dict[str, Any] = {"pretrained": str(tmp_path), "draft": "prompt-lookup", "device": "cpu"}
    with pytest.raises(JudgeDecodingError, match=r"random: model\.norm\.weight"):
        JudgeLM(**arguments)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(JudgeDecodingError):
        JudgeLM(**arguments)
