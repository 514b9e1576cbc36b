"""A judge tells how unlike its training questions a prompt is, while it decodes; ``test_familiarity`` has the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from commands import Run
from judge_decoding import (
    Exact,
    Judge,
    JudgeDecoder,
    JudgeHead,
    PromptLookup,
    Stats,
    TopK,
    custom_generate,
)
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.loop import decode
from judge_decoding.models.abilities import abilities
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.reference import pair as reference
from judge_decoding.reference.problems import draw_many
from test_familiarity import knowing
from tiny import VOCAB_SIZE, llama, random_head, request

PROMPTS = [[5], [1, 5, 6, 7, 8], list(range(4, 30)), [9, 9, 9]]


def distances(target: PreTrainedModel, head: JudgeHead, prompts: Sequence[Sequence[int]], draft: PreTrainedModel):
    """What a batch tells of each of its rows."""
    stats = [Stats() for _ in prompts]
    requests = [request(target, prompt, Judge(head, 0.5)) for prompt in prompts]
    for row, event in decode(target, DraftModel(draft, VOCAB_SIZE), requests):
        stats[row].add(event)
    return [each.distances for each in stats]


@pytest.mark.parametrize("norm", ["before", "after"])
def test_the_distance_is_that_of_the_prompts_last_state(
    target: LlamaForCausalLM, draft: PreTrainedModel, norm: str
) -> None:
    head = knowing(target, norm=norm)
    assert head.familiarity is not None
    for prompt in PROMPTS:
        state = hidden_states(target, [prompt], norm)[0][-1]  # type: ignore[arg-type]
        (told,) = distances(target, head, [prompt], draft)
        assert told == [pytest.approx(float(head.familiarity(state)), rel=1e-3)]


def test_it_is_told_once_with_the_first_round(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    rounds = [
        e for _, e in decode(target, DraftModel(draft, VOCAB_SIZE), [request(target, [5, 6], Judge(knowing(target)))])
    ]
    assert len(rounds) > 1
    assert [event.distance is None for event in rounds] == [False] + [True] * (len(rounds) - 1)


def test_rows_of_a_batch_get_the_distances_they_get_alone(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    head = knowing(target)
    together = distances(target, head, PROMPTS, draft)
    alone = [distances(target, head, [prompt], draft)[0] for prompt in PROMPTS]
    assert [len(each) for each in together] == [1] * len(PROMPTS)
    assert [each[0] for each in together] == pytest.approx([each[0] for each in alone], rel=1e-3)
    assert len({round(each[0], 2) for each in alone}) == len(PROMPTS)


def test_a_head_that_does_not_know_tells_nothing(
    target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead
) -> None:
    assert distances(target, head, PROMPTS, draft) == [[]] * len(PROMPTS)


def test_rules_beside_the_judge(target: LlamaForCausalLM, draft: PreTrainedModel, tokenizer: Any) -> None:
    head = knowing(target)
    decoder = JudgeDecoder(target, tokenizer, draft, head)
    ids = torch.tensor(PROMPTS[1])
    own = decoder.generate(ids, 8).distance
    assert own is not None
    assert decoder.generate(ids, 1).distance == pytest.approx(own, rel=1e-3)  # no room for a draft
    assert decoder.generate(ids, 8, rule=TopK(2) | Judge(head)).distance == pytest.approx(own, rel=1e-3)
    assert decoder.generate(ids, 8, threshold=1).distance == pytest.approx(own, rel=1e-3)
    assert decoder.generate(ids, 8, rule=Exact()).distance is None
    assert JudgeDecoder(target, tokenizer, None, head).generate(ids, 8).distance is None
    assert JudgeDecoder(target, tokenizer, PromptLookup(), head).generate(ids, 8).distance == pytest.approx(
        own, rel=1e-3
    )
    assert next(chunk.round.distance for chunk in decoder.stream(ids, 8)) == pytest.approx(own, rel=1e-3)
    batch = decoder.generate_batch([torch.tensor(p) for p in PROMPTS], 8)
    assert batch[1].distance == pytest.approx(own, rel=1e-3)


def test_transformers_generate_tells_it_by_row(target: Any, draft: PreTrainedModel) -> None:
    head = knowing(target)
    judged = custom_generate(draft, head)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    target.generate(ids, attention_mask=(ids > 0).long(), custom_generate=judged, max_new_tokens=6, pad_token_id=0)
    expected = [distances(target, head, [row], draft)[0][0] for row in ([5, 6], [7, 8, 9, 10])]
    assert sorted(judged.stats.distances) == pytest.approx(sorted(expected), rel=1e-3)
    assert [rounds[0].distance for rounds in judged.rounds] == pytest.approx(expected, rel=1e-3)


def test_statistics_of_many_requests() -> None:
    one, other = Stats(distances=[0.5, 1.2]), Stats(distances=[3.0, 1.0])
    one.merge(other)
    assert one.distances == [0.5, 1.2, 3.0, 1.0]
    assert one.unlike_training == 2
    figures = one.to_dict()
    assert (figures["prompts_measured"], figures["prompts_unlike_training"]) == (4, 2)


def test_it_costs_no_forward_and_waits_for_nothing(draft: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number read from a tensor waits for the device: the distance is read behind all that a round reads anyhow."""
    for model in (llama(0), draft):  # what a model can do is found out once
        abilities(model)
    reads: list[str] = []
    for name in ("__bool__", "__int__", "__float__", "item", "tolist"):
        method = getattr(Tensor, name)

        def spy(self: Tensor, *, name: str = name, method: Any = method) -> Any:
            reads.append(name)
            return method(self)

        monkeypatch.setattr(Tensor, name, spy)
    seen = []
    for head in (knowing(llama(0)), random_head(llama(0))):
        target, counted = llama(0), list[int]()
        target.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        requests = [request(target, prompt, Judge(head, 0.5)) for prompt in PROMPTS]
        reads.clear()
        rounds = len(list(decode(target, DraftModel(draft, VOCAB_SIZE), requests)))
        seen.append((len(counted), rounds, list(reads)))
    (with_forwards, with_rounds, with_reads), (forwards, rounds, others) = seen
    assert (with_forwards, with_rounds) == (forwards, rounds)
    assert with_reads == others


# The command line


def test_generate_warns_in_one_sentence(
    run: Run, folders: dict[str, Path], target: LlamaForCausalLM, tmp_path: Path
) -> None:
    head = knowing(target)
    assert head.familiarity is not None
    asked = ("generate", folders["target"], "one two", "--draft", folders["draft"], "--judge", tmp_path / "judge",
             "--no-chat", "--max-new-tokens", 6, "--plain", "--out", tmp_path / "record.json",
             "--overwrite")  # fmt: skip
    for limit, warned in ((1e-3, True), (1e3, False)):
        head.familiarity.config.limit = limit
        head.save_pretrained(tmp_path / "judge")
        code, out, err = run(*asked)
        assert code == 0
        assert ("unlike the questions the judge was trained on" in err) is warned
        assert err.count("\n") == (1 if warned else 0)
        assert "unlike" not in out
        record = json.loads((tmp_path / "record.json").read_text())
        assert (record["distance"] > 1) is warned
        assert record["stats"]["prompts_unlike_training"] == int(warned)
    head.familiarity.config.limit = 1e-3
    head.save_pretrained(tmp_path / "judge")
    assert run(*asked, "--threshold", 1)[2] == ""  # nothing is rescued: the answer is the target's own
    head.set_familiarity(None)
    head.save_pretrained(tmp_path / "judge")
    assert run(*asked)[2] == ""
    assert "distance" not in json.loads((tmp_path / "record.json").read_text())


def test_info_tells_whether_a_head_knows_its_questions(run: Run, folders: dict[str, Path]) -> None:
    assert "from 2000 training questions" in run("info", "reference")[1]
    assert "cannot measure the distance" in run("info", folders["judge"])[1]


# The embedded pair


def test_the_embedded_judge_knows_its_family_and_no_other() -> None:
    decoder, _ = reference.load_pair()

    def warned(family: str, count: int) -> int:
        problems = draw_many(0, "calibration", count, family)  # type: ignore[arg-type]
        answers = decoder.generate_batch([reference.prompt_of(p) for p in problems], 1, batch_size=20)
        return sum(answer.distance is not None and answer.distance > 1 for answer in answers)

    assert warned("comparison", 40) == 40
    # More than one in twenty: the training questions hold fewer of the shortest problems (docs/familiarity.md).
    assert warned("collection", 200) <= 40
