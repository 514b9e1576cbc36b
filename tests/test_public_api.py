"""The flat public API: what is imported is exported, and it is all there."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import judge_decoding
from judge_decoding import JudgeHead

# The stub file, by which tools know the package, has no list.
PUBLIC: list[str] = judge_decoding.__all__  # type: ignore[attr-defined]


def stub() -> list[ast.stmt]:
    """What type checkers see."""
    return ast.parse(Path(judge_decoding.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body


def test_the_stub_exports_each_name_from_where_it_is_found() -> None:
    """Strict type checkers take for exported what is imported as itself."""
    imports = [node for node in stub() if isinstance(node, ast.ImportFrom)]
    assert len(imports) > 60
    for node in imports:
        (alias,) = node.names
        assert alias.asname == alias.name
        assert getattr(judge_decoding, alias.name) is getattr(import_module(node.module or ""), alias.name)
    exported = [node.names[0].name for node in imports]
    assert sorted([*exported, "__version__"]) == PUBLIC == dir(judge_decoding)
    (version,) = (node for node in stub() if not isinstance(node, ast.ImportFrom))
    assert ast.unparse(version) == "__version__: str"


def test_all_is_sorted_and_without_repetition() -> None:
    assert list(PUBLIC) == sorted(set(PUBLIC))


def test_every_public_name_is_there_and_documented() -> None:
    for name in PUBLIC:
        value = getattr(judge_decoding, name)
        assert isinstance(value, str) or value.__doc__, name
        assert not isinstance(value, types.ModuleType), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(judge_decoding, "nonsense")  # noqa: B009


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, judge_decoding.cli.main; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", judge_decoding.__version__)


def test_every_error_a_user_can_cause_is_a_value_error() -> None:
    assert issubclass(judge_decoding.JudgeDecodingError, ValueError)


@pytest.mark.slow
def test_what_the_commands_do_a_notebook_can_do(
    target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("judge_decoding.evaluation.bench.plan.LENGTHS", (2,))
    monkeypatch.setattr("judge_decoding.evaluation.bench.plan.CONFIDENT_LENGTHS", (8,))
    head = copy.deepcopy(head)  # its threshold is set
    decoder = judge_decoding.JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=4)
    task = judge_decoding.parse_task("jsonl(checker=exact)")
    prompt_format = judge_decoding.PromptFormat(task, max_new_tokens=8)
    texts = ("one two", "red blue up", "good bad", "seven")
    own = [decoder.alone().generate(f"Question: {text}\nAnswer:", 8, stop="\nQuestion:") for text in texts]
    path = tmp_path / "questions.jsonl"
    rows = [{"question": text, "reference": one.text} for text, one in zip(texts, own, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items = judge_decoding.read_items(task, path)
    tokens = [len(one.token_ids) for one in own]

    method = judge_decoding.Method(decoder, judge_decoding.Exact(), 3)
    samples, outcomes = judge_decoding.evaluate(method, prompt_format, items)
    assert [sample.text for sample in samples] == [one.text for one in own]
    assert {name: outcome.accuracy for name, outcome in outcomes.items()} == {"method": 1.0, "target alone": 1.0}

    found = judge_decoding.sweep(
        decoder, prompt_format, items, [judge_decoding.Exact(), judge_decoding.Judge(head, 0.5)], lengths=(2, 4),
        tuning_items=1,
    )  # fmt: skip
    assert [row.name for row in found.rows] == ["target alone", "exact", "judge(threshold=0.5)"]
    assert {(row.name, row.num_draft_tokens) for row in found.tuning} == {
        (name, length) for name in ("exact", "judge(threshold=0.5)") for length in (2, 4)
    }
    assert [item.key for item in found.items] == [item.key for item in items[1:]]
    assert (found.rows[0].accuracy, found.rows[1].accuracy) == (1.0, 1.0)

    judge_decoding.calibrate(decoder, head, prompt_format, items, 0, thresholds=(0.0, 1.0))
    assert head.config.calibration["target_accuracy"] == 1.0
    assert head.config.calibration["curve"][1]["accuracy"] == 1.0

    measured = judge_decoding.bench(decoder, prompt_format, items, tuning_items=1, repetitions=1, compiled=False)
    assert [item.key for item in measured.items] == [item.key for item in items[1:]]
    assert {row.tokens for row in measured.rows if row.same_tokens} == {sum(tokens[1:])}
    assert {row.family for row in measured.rows} == {"generate", "plain", "assisted", "exact", "judge"}

    texts_of = [judge_decoding.TokenizedAnswer((5, 6), (7, 8, 9)), judge_decoding.TokenizedAnswer((5,), (6,))]
    scored = judge_decoding.score(
        decoder, texts_of, [judge_decoding.TopK(10_000)], judge_decoding.ScoreConfig(num_draft_tokens=(3, 1))
    )
    # Every token is accepted. A round of three reads all of a text; rounds of one keep their token and the next.
    assert [one.answers for one in scored] == [{0: (3, 3, 1), 1: (1, 1, 1)}, {0: (2, 3, 2), 1: (1, 1, 1)}]

    prompt = "Question: one two\nAnswer:"
    swaps = judge_decoding.label_by_equivalence(
        decoder, [prompt], judge_decoding.result_function("exact"), max_new_tokens=8
    )
    assert {case.question for case in swaps} == {prompt}
    wrong, right = "2 + 2 = 5", "2 + 2 = 4"
    labels = judge_decoding.label_by_arithmetic(
        judge_decoding.Case(question="?", answer=text) for text in (wrong, right)
    )
    assert [(case.answer, case.errors) for case in labels.located] == [(wrong, ((8, 9),))]
    assert [case.answer for case in labels.silent] == [right]
