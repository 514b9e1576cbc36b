"""The main job on the embedded pair, asserted as counts and tokens."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from judge_decoding import Exact, JudgeDecoder, JudgeHead, TopK
from judge_decoding.cli.main import app
from judge_decoding.core.rounds import Cause
from judge_decoding.evaluation.trial import Method, Outcome, answers, compare
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.reference import pair, problems
from judge_decoding.reference.problems import draw_many
from judge_decoding.tasks import Item, read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat

pytestmark = pytest.mark.slow

PROBLEMS = draw_many(0, "test", 30)
ASKING = PromptFormat(Arithmetic())
ITEMS = read_items(Arithmetic(count=30))


@cache
def loaded() -> tuple[JudgeDecoder, JudgeDecoder]:
    return pair.load_pair()


@cache
def outcomes() -> dict[str, Outcome]:
    both, draft = loaded()
    target = JudgeDecoder(both.target, both.tokenizer)
    return compare(
        {
            "target": Method(target),
            "draft": Method(draft),
            "exact": Method(both, Exact(), 16),
            "judge": Method(both, None, 16),
            "top_2": Method(both, TopK(2), 16),
        },
        ASKING,
        ITEMS,
        batch_size=30,
    )


def test_the_pair_is_small_and_the_draft_eight_times_cheaper():
    both, draft = loaded()
    size = sum(file.stat().st_size for folder in (pair.TARGET, pair.DRAFT, pair.JUDGE) for file in folder.iterdir())
    assert size < 40e6
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in (("t", both.target), ("d", draft.target))}
    assert count["t"] >= 8 * count["d"]


def test_exact_gives_the_targets_answers():
    both, _ = loaded()
    target: Any = both.target
    assert outcomes()["exact"].right == outcomes()["target"].right
    for problem in PROBLEMS[:4]:
        ids = both.encode(pair.prompt_of(problem))
        own = target.generate(ids, max_new_tokens=problems.MAX_NEW_TOKENS, do_sample=False)[0, ids.shape[1] :].tolist()
        for method in (Method(both, Exact(), 16), Method(both, Exact(), 3)):
            given = answers(method, ASKING, [Item("x", (problem.question.strip(),))])[0][0]
            assert list(given.token_ids) == own


def test_the_target_is_right_far_more_often_than_the_draft():
    found = outcomes()
    assert found["target"].accuracy >= 0.9
    assert found["draft"].accuracy <= found["target"].accuracy - 0.15


def test_the_judge_accepts_more_and_keeps_the_accuracy():
    found = outcomes()
    assert found["judge"].stats.accepted_per_round >= 2 * found["exact"].stats.accepted_per_round
    assert found["judge"].accuracy >= found["target"].accuracy - 0.07  # of 30 problems; the benchmark has 1,000
    assert found["judge"].stats.causes[Cause.RESCUED] > 0


def test_the_judge_accepts_more_than_top_2_and_loses_no_more():
    found = outcomes()
    assert found["judge"].stats.accepted_per_round > found["top_2"].stats.accepted_per_round
    assert found["judge"].accuracy >= found["top_2"].accuracy


def test_threshold_one_is_exact_and_zero_keeps_everything():
    both, _ = loaded()
    for problem in PROBLEMS[:2]:
        prompt = pair.prompt_of(problem)
        assert both.generate(prompt, 140, threshold=1.0).token_ids == both.generate(prompt, 140, rule=Exact()).token_ids
        everything = both.generate(prompt, 140, threshold=0.0)
        assert everything.stats.causes[Cause.CORRECTION] == 0


def test_chat_messages_and_text_give_the_same_prompt():
    both, _ = loaded()
    problem = PROBLEMS[0]
    messages = [{"role": "user", "content": problem.question.strip()}]
    assert both.encode(messages).tolist() == both.encode(pair.prompt_of(problem)).tolist()


def test_the_judge_says_what_it_is():
    head = JudgeHead.from_pretrained(pair.JUDGE, load_model(str(pair.TARGET)))
    assert head.linear.weight.numel() == 128
    assert head.config.data["cases"] >= 1000
    assert 0.5 < head.config.calibration["auc"] < 1
    assert head.config.num_draft_tokens


def test_the_tokenizer_gives_back_every_question():
    tokenizer = load_tokenizer(str(pair.TARGET))
    for problem in PROBLEMS:
        ids = tokenizer(pair.prompt_of(problem))["input_ids"]
        assert tokenizer.decode(ids) == pair.prompt_of(problem)
        assert tokenizer.unk_token_id not in ids


def test_the_demo_prints_a_table_and_an_example_and_writes_what_it_printed(tmp_path):
    figures, page = tmp_path / "demo.json", tmp_path / "demo.html"
    done = CliRunner().invoke(app, ["demo", "--limit", "3", "--out", str(figures), "--html", str(page)])
    assert done.exit_code == 0, done.output
    for word in ("target alone", "standard", "judge decoding", "«", "rescued", "correction", "bonus"):
        assert word in done.output
    written = json.loads(figures.read_text())
    assert written["problems"] == 3
    assert set(written["methods"]) == {"target", "draft", "exact", "judge"}
    for row in written["methods"].values():
        assert 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1
    assert written["methods"]["target"]["tokens_per_forward"] == 1
    assert written["methods"]["target"]["speedup"] == 1
    assert written["methods"]["exact"]["accuracy"] == written["methods"]["target"]["accuracy"]
    html = page.read_text()
    assert '<table class="figures"' in html
    assert "http" not in html.replace("http-equiv", "")  # self-contained


def test_the_demos_draft_length_and_threshold_can_be_given(tmp_path):
    figures = tmp_path / "demo.json"
    args = ["demo", "--limit", "2", "--num-draft-tokens", "5", "--threshold", "1", "--out", str(figures)]
    assert CliRunner().invoke(app, args).exit_code == 0
    methods = json.loads(figures.read_text())["methods"]
    assert methods["judge"]["num_draft_tokens"] == methods["exact"]["num_draft_tokens"] == 5
    assert methods["judge"]["accepted_per_round"] == methods["exact"]["accepted_per_round"]
