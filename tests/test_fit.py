"""``judge-decoding fit``: one command from prompts to a head, which resumes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from commands import Run, ends_in_one_sentence, is_one_sentence
from judge_decoding import JudgeDecoder, JudgeHead, read_cases
from judge_decoding.court.labels import equivalence
from judge_decoding.reference import pair
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import draw_many

PROBLEMS = draw_many(11, "head", 16)
OPTIONS = ("--target", "reference", "--max-new-tokens", 140, "--batch-size", 20)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts without references."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"question": prompt_of(problem)} for problem in PROBLEMS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_from_prompts_to_a_head_that_decodes(
    run: Run, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer draft lengths are timed than a user would want.
    monkeypatch.setattr("judge_decoding.cli.fit.EXACT_LENGTHS", (4,))
    monkeypatch.setattr("judge_decoding.cli.fit.JUDGE_LENGTHS", (8, 16))
    monkeypatch.setattr("judge_decoding.cli.fit.TIMED", 2)
    out, args = tmp_path / "head", ("fit", *OPTIONS, "--prompts", prompts, "--out", tmp_path / "head")
    # The cost is told first, and nobody is there to agree to it; what was measured is kept.
    ends_in_one_sentence(run(*args), "add --yes")
    assert not out.exists()
    part = tmp_path / "head.work" / "labels.jsonl.part"
    begun = part.read_text(encoding="utf-8")
    assert len(begun.splitlines()) == 4  # the settings and three questions
    code, told, err = run(*args, "--yes", "--json")
    assert code == 0, err
    assert "3 of " in err
    assert "target forwards" in err
    figures = json.loads(told)
    labels = read_cases(tmp_path / "head.work" / "labels.jsonl")
    assert figures["cases"] == len(labels)
    # No prompt teaches the head and chooses its threshold.
    assert figures["calibration_prompts"] + len({case.question for case in labels}) <= len(PROBLEMS)
    assert figures["accuracy"] >= figures["target_accuracy"] - 0.01
    # There are no references, and few prompts.
    assert any("the target's own answer" in sentence for sentence in figures["warnings"])
    assert any("accuracy is rough" in sentence for sentence in figures["warnings"])
    assert figures["methods"].keys() == {"target", "exact", "judge"}
    head = JudgeHead.from_pretrained(out)
    assert head.config.threshold == figures["threshold"]
    assert (
        head.config.num_draft_tokens == figures["num_draft_tokens"] == figures["methods"]["judge"]["num_draft_tokens"]
    )
    decoder = JudgeDecoder.from_pretrained(pair.TARGET, pair.DRAFT, out)
    # Where its threshold is put depends on ten prompts; that it tells tokens apart does not.
    exact, judged = (
        decoder.generate(prompt_of(PROBLEMS[0]), 140, threshold=threshold, num_draft_tokens=16)
        for threshold in (1.0, 0.05)
    )
    assert judged.stats.accepted_per_round > exact.stats.accepted_per_round

    # Run again, it keeps the head; when that may be replaced, it labels nothing.
    ends_in_one_sentence(
        run(*args), "config.json is there already; name another folder, or replace it with --overwrite"
    )
    with monkeypatch.context() as patch:
        patch.setattr(equivalence, "label_by_equivalence", None)
        code, told, err = run(*args, "--overwrite")
    assert code == 0, err
    assert "The labels are there already" in err
    for way in ("JudgeDecoder.from_pretrained(", "custom_generate=", "judge-decoding generate ", "vllm serve "):
        assert way in told
    (serve,) = (shlex.split(line) for line in told.splitlines() if "vllm serve " in line)
    speculative, additional = (
        json.loads(serve[serve.index(name) + 1]) for name in ("--speculative-config", "--additional-config")
    )
    assert speculative["num_speculative_tokens"] == JudgeHead.from_pretrained(out).config.num_draft_tokens
    assert additional == {"judge": {"head": str(out)}}
    # With other settings the labels are others.
    ends_in_one_sentence(run(*args, "--seed", 1, "--overwrite"), "add --yes")


def test_what_cannot_be_done_is_one_sentence(run: Run, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "head"
    args = ("fit", *OPTIONS, "--prompts", prompts)
    is_one_sentence(run(*args, "--out", prompts), "name a folder")
    is_one_sentence(run(*args, "--out", out, "--share", "1.5"), "between 0 and 1")
    is_one_sentence(run(*args, "--out", out, "--result", "nonsense"), "There is no result nonsense")
    is_one_sentence(run("fit", *OPTIONS, "--prompts", tmp_path / "none", "--out", out), "Cannot read")
    is_one_sentence(
        run("fit", "--target", tmp_path / "none", "--draft", tmp_path / "x", "--prompts", prompts, "--out", out), "none"
    )
    assert not out.exists()
