"""``model.generate(custom_generate=...)``: its tokens are those of this package's own loop, its manners generate's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StopStringCriteria,
    SynthIDTextWatermarkingConfig,
    TextIteratorStreamer,
    WatermarkingConfig,
)
from transformers.generation.streamers import BaseStreamer

from judge_decoding import (
    Cause,
    Exact,
    JudgeDecoder,
    JudgeDecodingError,
    JudgeHead,
    PromptLookup,
    Round,
    SamplingParams,
    Stats,
    TopK,
    custom_generate,
)
from judge_decoding.decoding.guards import Phase, StrictStart
from judge_decoding.decoding.lengths import Heuristic
from judge_decoding.integrations.transformers import JudgedOutput
from judge_decoding.judge.target import target_info
from judge_decoding.models.forward import Forward
from judge_decoding.reference import pair
from judge_decoding.reference.problems import draw_many
from judge_decoding.report.card_files import card_as_written
from tiny import (
    EOS,
    VOCAB_SIZE,
    WORDS,
    byte_level_tokenizer,
    chain,
    greedy,
    llama,
    mistral,
    perturbed,
    random_head,
    tokens,
    word_tokenizer,
)

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [9], [20, 21, 20, 21, 20], [14, 15, 16]]


@pytest.fixture(scope="module")
def weak(target: Any) -> PreTrainedModel:
    """Wrong often enough for a judge to matter."""
    return perturbed(target, 0.05)


@pytest.fixture(scope="module")
def decoder(target: Any, tokenizer: PreTrainedTokenizerFast, weak: PreTrainedModel, head: JudgeHead) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, weak, head, num_draft_tokens=5)


def padded(prompts: list[list[int]], pad: int = 0) -> dict[str, Any]:
    """A left-padded batch."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def answers(output: Tensor, prompts: list[list[int]]) -> list[list[int]]:
    """The new tokens of each row, without the padding after an end token."""
    new = output[:, max(map(len, prompts)) :].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in new]


def drafts(name: str, weak: PreTrainedModel) -> Any:
    def repeat(ids: list[int], count: int) -> list[int]:
        return ids[-2:] * count

    return {"model": weak, "prompt lookup": PromptLookup(), "function": repeat, "none": None}[name]


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", ["model", "prompt lookup", "function", "none"])
def test_exact_verification_gives_the_very_tensor_of_generate(
    target: Any, weak: PreTrainedModel, name: str, size: int
) -> None:
    inputs = padded(PROMPTS[:size])
    expected = target.generate(**inputs, max_new_tokens=30, do_sample=False)
    judged = custom_generate(drafts(name, weak), num_draft_tokens=4)
    assert torch.equal(target.generate(**inputs, max_new_tokens=30, custom_generate=judged), expected)
    if size > 1:
        assert EOS in expected[0].tolist()  # so that some rows are padded
        assert len({len(row) for row in answers(expected, PROMPTS)}) > 1


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["model", "prompt lookup"])
def test_the_judges_tokens_are_the_decoders(
    target: Any, decoder: JudgeDecoder, head: JudgeHead, weak: PreTrainedModel, name: str,
    threshold: float | None,
) -> None:  # fmt: skip
    other = JudgeDecoder(target, decoder.tokenizer, drafts(name, weak), head, num_draft_tokens=5)
    expected = other.generate_batch([torch.tensor(p) for p in PROMPTS], 20, threshold=threshold)
    judged = custom_generate(drafts(name, weak), head, threshold=threshold, num_draft_tokens=5)
    alone = [
        target.generate(torch.tensor([p]), max_new_tokens=20, custom_generate=judged)[0, len(p) :].tolist()
        for p in PROMPTS
    ]
    assert alone == [list(one.token_ids) for one in expected]
    together = target.generate(**padded(PROMPTS), max_new_tokens=20, custom_generate=judged)
    assert answers(together, PROMPTS) == alone
    ours, theirs = ([e for row in rows for e in row] for rows in (judged.rounds, [one.rounds for one in expected]))
    assert [replace(event, scores=None) for event in ours] == [replace(event, scores=None) for event in theirs]
    # The vectorised sigmoid of a CPU and that of its last few numbers may round the last bit otherwise.
    assert [event.scores or () for event in ours] == [pytest.approx(event.scores or (), abs=1e-5) for event in theirs]
    exact = [greedy(target, p, 20, stop=True) for p in PROMPTS]
    assert (alone == exact) == (threshold == 1.0)


def test_rule_length_and_guards_are_the_decoders(
    target: Any, decoder: JudgeDecoder, head: JudgeHead, weak: PreTrainedModel
) -> None:
    ids = torch.tensor([PROMPTS[0]])
    seen: list[tuple[Round, ...]] = []
    for rule, options in (
        (TopK(3), {}),
        (TopK(3), {"guards": [StrictStart(6)]}),
        (TopK(3), {"draft_length": Heuristic}),
        (None, {"threshold": 0.2, "guards": [StrictStart(6)]}),
    ):
        expected = decoder.generate(ids, 24, rule=rule, **options)
        judged = custom_generate(weak, head if rule is None else None, rule, num_draft_tokens=5, **options)
        target.generate(ids, max_new_tokens=24, custom_generate=judged)
        assert judged.rounds == (expected.rounds,)
        seen.append(expected.rounds)
    assert len(set(seen)) == 4


@pytest.mark.parametrize("threshold", [0.4, 1.0])
def test_sampled_tokens_are_the_decoders_for_the_same_seed(
    target: Any, decoder: JudgeDecoder, head: JudgeHead, weak: PreTrainedModel, threshold: float
) -> None:
    params = {"temperature": 1.3, "top_p": 0.9, "top_k": 15, "min_p": 0.02}
    if Version(transformers.__version__) >= Version("5.20"):  # before, generate penalised a row's padding, too
        params["repetition_penalty"] = 1.2
    judged = custom_generate(weak, head, threshold=threshold, num_draft_tokens=5, seed=7)
    output = target.generate(**padded(PROMPTS), do_sample=True, max_new_tokens=24, custom_generate=judged, **params)
    expected = [
        decoder.generate(
            torch.tensor(p),
            24,
            threshold=threshold,
            sampling=SamplingParams(seed=7 + i, **params),  # type: ignore[arg-type]
        )
        for i, p in enumerate(PROMPTS)
    ]
    assert answers(output, PROMPTS) == [list(one.token_ids) for one in expected]
    assert any(len(event.causes) > 1 for event in judged.rounds[0])


def test_torchs_own_seed_repeats_what_was_drawn_and_rows_differ(target: Any, weak: PreTrainedModel) -> None:
    ids = torch.tensor([PROMPTS[0]])

    def sample(seed: int, **options: int) -> Tensor:
        torch.manual_seed(seed)
        judged = custom_generate(weak, seed=options.pop("own", None))
        return target.generate(
            ids, do_sample=True, temperature=2.0, top_k=0, max_new_tokens=16, eos_token_id=None, pad_token_id=0,
            custom_generate=judged, **options,
        )  # fmt: skip

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert torch.equal(sample(1, own=5), sample(2, own=5))
    several = sample(3, num_return_sequences=4)
    assert several.shape == (4, len(PROMPTS[0]) + 16)
    assert len({tuple(row) for row in several.tolist()}) == 4


def test_greedy_decoding_leaves_the_global_generator_alone(target: Any, weak: PreTrainedModel) -> None:
    before = torch.random.get_rng_state()
    target.generate(torch.tensor([[5, 6]]), max_new_tokens=8, custom_generate=custom_generate(weak))
    assert torch.equal(torch.random.get_rng_state(), before)


class NoTwiceInARow(LogitsProcessor):
    """Writes into the scores it is given, as many do, and looks at where the row is."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert len(input_ids) == len(scores)
        for row in range(len(scores)):
            scores[row, input_ids[row, -1]] = -torch.inf
            scores[row, 10 + row] += 3.0
        return scores


def only_some(row: int, ids: Tensor) -> list[int]:
    """Each row has words of its own, and every other one after every other."""
    return list(range(4 + row + len(ids) % 2, VOCAB_SIZE, 2))


PROCESSING: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.1},
    "n-grams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[5], [20, 21], [30, 31]]},
    "a minimum": {"min_new_tokens": 12},
    "a minimal length": {"min_length": 17},
    "an end": {"forced_eos_token_id": EOS},
    "growing impatience": {"exponential_decay_length_penalty": (3, 1.5)},
    "no first word": {"begin_suppress_tokens": list(range(4, 20))},
    "each its own words": {"prefix_allowed_tokens_fn": only_some},
    "encoder": {"encoder_repetition_penalty": 1.4},
    "of one's own": {"logits_processor": LogitsProcessorList([NoTwiceInARow()])},
    "watermark": {"watermarking_config": WatermarkingConfig(bias=6.0)},
    "several": {"repetition_penalty": 1.2, "min_new_tokens": 5, "logits_processor": [NoTwiceInARow()]},
}


@pytest.mark.parametrize("what", PROCESSING)
def test_logits_processors_see_each_position_of_each_row(target: Any, weak: PreTrainedModel, what: str) -> None:
    """Those that count see the padding, as in generate; those that look at a row's number see it."""
    inputs, options = padded(PROMPTS), PROCESSING[what]
    plain = target.generate(**inputs, max_new_tokens=20, do_sample=False)
    expected = target.generate(**inputs, max_new_tokens=20, do_sample=False, **options)
    assert expected.shape != plain.shape or not torch.equal(expected, plain)
    accepted = 0
    for drafter in (weak, PromptLookup()) if what != "each its own words" else (weak,):
        judged = custom_generate(drafter, num_draft_tokens=4)
        assert torch.equal(target.generate(**inputs, max_new_tokens=20, custom_generate=judged, **options), expected)
        accepted += judged.stats.accepted
    assert accepted


class Noting(BaseStreamer):
    def __init__(self) -> None:
        self.put_: list[Any] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        assert value.device.type == "cpu"
        assert not self.ended
        self.put_.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("what", [{"suppress_tokens": [7]}, {"bad_words_ids": [[7]]}])
def test_no_rule_keeps_what_a_processor_forbids(
    target: Any, head: JudgeHead, what: dict[str, Any], *, sampled: bool
) -> None:
    def proposes(ids: list[int], count: int) -> list[int]:
        return [7, 9] * count

    judged = custom_generate(proposes, head, threshold=0.0, num_draft_tokens=4, seed=0)
    inputs = padded(PROMPTS[:2])
    options = {"max_new_tokens": 30, "do_sample": sampled}
    assert answers(target.generate(**inputs, custom_generate=judged, **options), PROMPTS[:2])[0][:2] == [7, 9]
    output = target.generate(**inputs, custom_generate=judged, **options, **what)
    kept = answers(output, PROMPTS[:2])
    assert sum(map(len, kept)) > 20
    assert not any(7 in row for row in kept)
    if sampled:  # a truncation is no constraint: it weighs tokens against each other
        output = target.generate(**inputs, custom_generate=judged, **options, top_k=1)
        assert answers(output, PROMPTS[:2])[0][:2] == [7, 9]


@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_a_streamer_gets_the_prompt_then_each_token_then_the_end(
    target: Any, weak: PreTrainedModel, head: JudgeHead, threshold: float
) -> None:
    streamer, judged = Noting(), custom_generate(weak, head, threshold=threshold)
    output = target.generate(torch.tensor([[5, 6]]), max_new_tokens=12, streamer=streamer, custom_generate=judged)
    assert streamer.put_[0] == [[5, 6]]
    assert streamer.put_[1:] == [[token] for token in output[0, 2:].tolist()]
    assert streamer.ended == 1
    if threshold == 1.0:
        plain = Noting()
        target.generate(torch.tensor([[5, 6]]), max_new_tokens=12, do_sample=False, streamer=plain)
        assert plain.put_ == streamer.put_


def test_an_iterator_over_the_text_comes_to_its_end(
    target: Any, tokenizer: PreTrainedTokenizerFast, weak: PreTrainedModel
) -> None:
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    ids = torch.tensor([PROMPTS[0]])
    thread = threading.Thread(
        target=target.generate,
        kwargs={
            "inputs": ids, "streamer": streamer, "max_new_tokens": 12, "eos_token_id": None,
            "custom_generate": custom_generate(weak),
        },
    )  # fmt: skip
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(greedy(target, PROMPTS[0], 12))


class After(StoppingCriteria):
    """Ends a row behind its first ``token`` that is not in the prompt."""

    def __init__(self, token: int, prompt: int) -> None:
        self.token, self.prompt = token, prompt

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return (input_ids[:, self.prompt :] == self.token).any(-1)


def test_stopping_criteria_end_an_answer_where_generate_ends_it(target: Any, weak: PreTrainedModel) -> None:
    for prompt in PROMPTS:
        said = greedy(target, prompt, 20, stop=True)
        ids = torch.tensor([prompt])
        for place in (0, 3, len(said) - 1):
            options: dict[str, Any] = {"stopping_criteria": [After(said[place], len(prompt))], "max_new_tokens": 20}
            expected = target.generate(ids, do_sample=False, **options)
            for drafter in (weak, target):  # the second has every draft accepted
                judged = custom_generate(drafter, num_draft_tokens=6)
                assert torch.equal(target.generate(ids, custom_generate=judged, **options), expected)
                assert judged.rounds[0][-1].stopped


@pytest.mark.parametrize("stop", ["ef", "fab", "bc", "zz"])
def test_stop_strings_end_an_answer_wherever_tokens_begin(stop: str, tmp_path: Path) -> None:
    """Through a head's folder they are arguments as in generate; to the method they go in as a criterion."""
    tokenizer = byte_level_tokenizer("ab", "cd", "ef")
    model: Any = chain(tokenizer, "ab", "cd", "e", "f")
    ids = torch.tensor([tokenizer("ab")["input_ids"]])
    options = {"max_new_tokens": 12, "do_sample": False}
    expected = model.generate(ids, stop_strings=[stop], tokenizer=tokenizer, **options)
    assert (expected.shape[1] == 13) == (stop == "zz")
    criteria = [StopStringCriteria(tokenizer, [stop])]
    for count in range(1, 7):
        judged = custom_generate(model, num_draft_tokens=count)
        assert torch.equal(model.generate(ids, stopping_criteria=criteria, custom_generate=judged, **options), expected)
    random_head(model, threshold=1.0).save_pretrained(tmp_path / "judge")
    given = through_folder(
        model, tmp_path / "judge", inputs=ids, stop_strings=stop, tokenizer=tokenizer, draft=model, **options
    )
    assert torch.equal(given, expected)


def test_criteria_in_a_batch_end_each_row_by_itself(target: Any, weak: PreTrainedModel) -> None:
    """They see the row as generate shows it, with its padding."""
    inputs, width = padded(PROMPTS), max(map(len, PROMPTS))
    said = target.generate(**inputs, max_new_tokens=8, do_sample=False)[:, width:]
    for row in range(len(PROMPTS)):
        options = {"stopping_criteria": [After(int(said[row, 2]), width)], "max_new_tokens": 20}
        expected = target.generate(**inputs, do_sample=False, **options)
        assert torch.equal(target.generate(**inputs, custom_generate=custom_generate(weak), **options), expected)


class Tracking(StoppingCriteria):
    """Made for a batch, and remembers which of its rows have said ``token``; done when all have."""

    def __init__(self, token: int, width: int, rows: int) -> None:
        self.token, self.width, self.done = token, width, [False] * rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> bool:
        for row, done in enumerate(self.done):
            self.done[row] = done or self.token in input_ids[row, self.width :].tolist()
        return all(self.done)


def test_criteria_that_remember_the_rows_of_a_batch_end_each_row_by_itself(target: Any, weak: PreTrainedModel) -> None:
    """What generate says of each row alone, though it would run on until all rows are done."""
    inputs, width = padded(PROMPTS), max(map(len, PROMPTS))
    said = target.generate(**inputs, max_new_tokens=8, do_sample=False)[:, width:]
    for row in range(len(PROMPTS)):
        token = int(said[row, 3])
        criteria = [Tracking(token, width, len(PROMPTS))]
        judged = custom_generate(weak, num_draft_tokens=3)
        target.generate(**inputs, max_new_tokens=20, stopping_criteria=criteria, custom_generate=judged)
        for prompt, rounds in zip(PROMPTS, judged.rounds, strict=True):
            alone = [Tracking(token, len(prompt), 1)]
            expected = target.generate(
                torch.tensor([prompt]), max_new_tokens=20, do_sample=False, stopping_criteria=alone
            )
            assert tokens(rounds) == expected[0, len(prompt) :].tolist()


def test_time_and_length_end_an_answer(target: Any, weak: PreTrainedModel) -> None:
    ids, judged = torch.tensor([PROMPTS[0]]), custom_generate(weak, num_draft_tokens=3)
    options: dict[str, Any] = {"custom_generate": judged, "eos_token_id": None}
    assert target.generate(ids, max_time=0.0, max_new_tokens=50, **options).shape[1] == len(PROMPTS[0]) + 1
    for count in range(1, 8):
        said = greedy(target, PROMPTS[0], count)
        assert target.generate(ids, max_new_tokens=count, **options)[0].tolist() == PROMPTS[0] + said
        assert target.generate(ids, max_length=len(PROMPTS[0]) + count, **options)[0].tolist() == PROMPTS[0] + said
        assert not judged.rounds[0][-1].stopped


def test_several_end_tokens_and_a_padding_token(target: Any, weak: PreTrainedModel) -> None:
    inputs = padded(PROMPTS)
    said = target.generate(**inputs, max_new_tokens=20, do_sample=False)
    ends = [EOS, int(said[0, -1]), int(said[2, 9])]
    options = {"eos_token_id": ends, "pad_token_id": 3, "max_new_tokens": 20}
    expected = target.generate(**inputs, do_sample=False, **options)
    assert 3 in expected.flatten().tolist()
    assert torch.equal(target.generate(**inputs, custom_generate=custom_generate(weak), **options), expected)
    # Without one generate takes the first end token.
    del options["pad_token_id"]
    model: Any = llama(0)
    model.generation_config.pad_token_id = None
    expected = model.generate(**inputs, do_sample=False, **options)
    assert torch.equal(model.generate(**inputs, custom_generate=custom_generate(weak), **options), expected)


def test_padding_may_be_anywhere(target: Any, weak: PreTrainedModel) -> None:
    ids = torch.tensor([[0, 5, 6, 7], [5, 6, 7, 0], [5, 0, 6, 7]])
    output = target.generate(
        ids, attention_mask=(ids != 0).long(), max_new_tokens=10, custom_generate=custom_generate(weak)
    )
    assert {tuple(row) for row in output[:, 4:].tolist()} == {tuple(output[0, 4:].tolist())}
    assert answers(output, [[0] * 4])[0] == greedy(target, [5, 6, 7], 10, stop=True)


def test_a_target_that_answers_one_by_one(weak: PreTrainedModel) -> None:
    target: Any = mistral()
    inputs = padded([p * 3 for p in PROMPTS])
    expected = target.generate(**inputs, max_new_tokens=20, do_sample=False)
    judged = custom_generate(perturbed(target, 0.05), num_draft_tokens=4)
    assert torch.equal(target.generate(**inputs, max_new_tokens=20, custom_generate=judged), expected)
    assert judged.stats.accepted


def test_rounds_and_statistics_can_be_had(target: Any, weak: PreTrainedModel, head: JudgeHead) -> None:
    seen: list[tuple[int, Round]] = []
    judged = custom_generate(weak, head, threshold=0.3, on_round=lambda row, event: seen.append((row, event)))
    output = target.generate(**padded(PROMPTS), max_new_tokens=16, custom_generate=judged, return_dict_in_generate=True)
    assert isinstance(output, JudgedOutput)
    assert output.rounds == judged.rounds
    for row in range(4):
        assert tuple(event for number, event in seen if number == row) == judged.rounds[row]
        ids = [token for event in judged.rounds[row] for token in event.token_ids]
        assert output.sequences[row, 7 : 7 + len(ids)].tolist() == ids
    assert judged.stats == Stats.of(event for _, event in seen)
    rescued = [any(Cause.RESCUED in event.causes for event in events) for events in judged.rounds]
    assert judged.lossy == output.lossy == tuple(rescued)
    assert any(rescued)
    target.generate(torch.tensor([[5]]), max_new_tokens=2, custom_generate=judged)
    assert len(judged.rounds) == 1  # those of the latest call
    assert judged.stats.tokens <= 2


def test_one_method_serves_many_calls(target: Any, weak: PreTrainedModel, head: JudgeHead) -> None:
    judged = custom_generate(weak, head, threshold=0.3)
    first = [target.generate(torch.tensor([p]), max_new_tokens=12, custom_generate=judged) for p in PROMPTS]
    again = [target.generate(torch.tensor([p]), max_new_tokens=12, custom_generate=judged) for p in PROMPTS]
    assert all(map(torch.equal, first, again))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 2}, "beam search.*leave out num_beams"),
    "prompt lookup": ({"prompt_lookup_num_tokens": 3}, "assisted generation"),
    "scores": ({"output_scores": True, "return_dict_in_generate": True}, "output_scores.*logprobs"),
    "logits": ({"output_logits": True, "return_dict_in_generate": True}, "output_logits"),
    "states": ({"output_hidden_states": True, "return_dict_in_generate": True}, "output_hidden_states"),
    "attentions": ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
    "guidance": ({"guidance_scale": 1.5}, "keeps state"),
    "a watermark with memory": (
        {"watermarking_config": SynthIDTextWatermarkingConfig(keys=[1, 2, 3], ngram_len=3), "do_sample": True},
        "keeps state",
    ),
    "another cache": ({"cache_implementation": "static"}, "its own KV cache"),
    "a cache of one's own": ({str(Forward(llama(0)).cache_name): DynamicCache()}, "its own KV cache"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 2, 32)}, "token ids only, and there is inputs_embeds"),
    "positions": ({"position_ids": torch.tensor([[4, 5]])}, "leave out position_ids"),
    "nothing but padding": ({"attention_mask": torch.tensor([[0, 0]])}, "nothing but padding"),
    "steps in common": ({"synced_gpus": True}, "synced_gpus"),
    "a full context": ({"input_ids": torch.full((1, 256), 5)}, "shorten the prompt"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused(target: Any, weak: PreTrainedModel, what: str) -> None:
    options, phrase = REFUSED[what]
    given = {"input_ids": torch.tensor([[5, 6]]), "max_new_tokens": 4, **options}
    with pytest.raises(JudgeDecodingError, match=f"(?s){phrase}") as caught:
        target.generate(**given, custom_generate=custom_generate(weak))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_positions_that_are_the_usual_ones_are_no_matter(target: Any, weak: PreTrainedModel) -> None:
    judged = custom_generate(weak)
    for prompts in (PROMPTS, [PROMPTS[0]] * 2):
        inputs = padded(prompts)
        plain = target.generate(**inputs, max_new_tokens=8, custom_generate=judged)
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        given = target.generate(**inputs, position_ids=positions, max_new_tokens=8, custom_generate=judged)
        assert torch.equal(given, plain)


def test_more_that_is_refused(
    target: Any, weak: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = torch.tensor([[5, 6]])
    judged = custom_generate(weak, head, threshold=0.5)
    options: dict[str, Any] = {"custom_generate": judged, "max_new_tokens": 4}
    other: Any = llama(9)

    def says(phrase: str, call: Callable[[], object]) -> None:
        with pytest.raises(JudgeDecodingError, match=phrase):
            call()

    says("assistant_model", lambda: target.generate(ids, assistant_model=weak, **options))
    says(
        "not the target's own",
        lambda: target.generate(ids, output_scores=True, return_dict_in_generate=True, **options),
    )
    says("one answer", lambda: target.generate(**padded(PROMPTS), streamer=Noting(), **options))
    says("trained for", lambda: other.generate(ids, **options))
    mistakes: list[dict[str, Any]] = [
        {"head": head, "rule": Exact(), "threshold": 0.5}, {"head": head, "threshold": 2.0}, {"threshold": 0.5},
    ]  # fmt: skip
    for wrong in mistakes:
        with pytest.raises(JudgeDecodingError):
            custom_generate(weak, **wrong)
    says("num_draft_tokens is 0", lambda: custom_generate(weak, num_draft_tokens=0))
    says("twice", lambda: custom_generate(weak, guards=[StrictStart(1), StrictStart(2)]))
    model: Any = llama(0)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    stopping = {"stopping_criteria": [After(5, 2)], "max_new_tokens": 3}
    says("pad_token_id", lambda: model.generate(ids.repeat(2, 1), custom_generate=judged, **stopping))
    assert model.generate(ids, custom_generate=judged, **stopping).shape[1] > 2
    assert model.generate(ids.repeat(2, 1), custom_generate=judged, max_new_tokens=3).shape == (2, 5)


def test_a_judge_of_both_models_states_gets_them(target: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    small = llama(7, hidden_size=16)
    judge = random_head(target, draft=target_info(small))
    expected = JudgeDecoder(target, tokenizer, small, judge).generate(torch.tensor(PROMPTS[0]), 20, threshold=0.4)
    judged = custom_generate(small, judge, threshold=0.4)
    target.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=20, custom_generate=judged)
    assert judged.rounds == (expected.rounds,)
    assert judged.stats.rescuers["judge"] > 0
    with pytest.raises(JudgeDecodingError, match="trained for"):
        target.generate(
            torch.tensor([[5]]), max_new_tokens=4, custom_generate=custom_generate(llama(8, hidden_size=16), judge)
        )


def test_the_reference_pair_says_the_same_in_transformers() -> None:
    """The real thing: the embedded pair, its judge, its prompts, all in one padded batch."""
    decoder, _ = pair.load_pair()
    prompts = [decoder.encode(pair.prompt_of(problem))[0].tolist() for problem in draw_many(0, "test", 6)]
    expected = decoder.generate_batch([torch.tensor(p) for p in prompts], 120)
    judged = custom_generate(decoder.draft, decoder.judge)
    target: Any = decoder.target
    output = target.generate(**padded(prompts), max_new_tokens=120, custom_generate=judged)
    for ours, theirs in zip(judged.rounds, expected, strict=True):
        assert [replace(event, scores=None) for event in ours] == [replace(e, scores=None) for e in theirs.rounds]
        # The rows are padded in another order, which may round a sum otherwise.
        found = [score for event in ours for score in event.scores or ()]
        assert found == pytest.approx([score for event in theirs.rounds for score in event.scores or ()], abs=1e-6)
    for row, one in zip(output[:, max(map(len, prompts)) :].tolist(), expected, strict=True):
        assert tuple(row[: len(one.token_ids)]) == one.token_ids
    assert judged.stats.rescuers["judge"] > 0


# The folder of a head.


@pytest.mark.slow
def test_a_heads_folder_decodes_in_a_process_that_knows_only_transformers(
    folders: dict[str, Path], target: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The program imports nothing of this package; the draft comes by name."""
    decoder = JudgeDecoder.from_pretrained(folders["target"], folders["draft"], folders["judge"], num_draft_tokens=4)
    program = """
        import sys
        import torch
        from transformers import AutoModelForCausalLM
        target, draft, judge = sys.argv[1:]
        model = AutoModelForCausalLM.from_pretrained(target)
        assert not any(name.startswith("judge_decoding") for name in sys.modules)
        for threshold in (0.0, 0.4, 1.0):
            ids = model.generate(
                torch.tensor([[10, 7]]), max_new_tokens=20, custom_generate=judge, trust_remote_code=True,
                draft=draft, threshold=threshold, num_draft_tokens=4,
            )
            print(*ids[0, 2:].tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *(str(folders[n]) for n in ("target", "draft", "judge"))],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [[int(i) for i in line.split()] for line in done.stdout.splitlines()]
    expected = [decoder.generate(torch.tensor([10, 7]), 20, threshold=t).token_ids for t in (0.0, 0.4, 1.0)]
    assert lines == [list(ids) for ids in expected]
    assert lines[2] == greedy(target, [10, 7], 20, stop=True)
    assert lines[0] != lines[2]


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> Any:
    """The target as it comes from its folder, so that it has a name."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folders["target"])


def through_folder(model: Any, folder: Path, **options: Any) -> Tensor:
    options.setdefault("max_new_tokens", 20)
    inputs = options.pop("inputs", torch.tensor([PROMPTS[0]]))
    return model.generate(inputs, custom_generate=str(folder), trust_remote_code=True, **options)


def test_a_heads_folder_takes_what_the_method_takes(
    folders: dict[str, Path], loaded: Any, weak: PreTrainedModel, head: JudgeHead
) -> None:
    ids = torch.tensor([PROMPTS[0]])

    def method(drafter: Any, **options: Any) -> Tensor:
        judged = custom_generate(drafter, head, **options)
        return loaded.generate(ids, custom_generate=judged, max_new_tokens=20)

    folder = folders["judge"]
    lossy = method(weak, threshold=0.2)
    seen: list[Round] = []
    given = through_folder(loaded, folder, draft=weak, threshold=0.2, on_round=lambda _, event: seen.append(event))
    assert torch.equal(given, lossy)
    assert sum(len(event.token_ids) for event in seen) == lossy.shape[1] - ids.shape[1]
    assert torch.equal(through_folder(loaded, folder, assistant_model=weak, threshold=0.2), lossy)
    lookup = through_folder(loaded, folder, draft="prompt-lookup", threshold=0.2)
    assert torch.equal(lookup, method(PromptLookup(), threshold=0.2))
    exact = through_folder(loaded, folder, draft=weak, rule=Exact())
    assert exact[0, 7:].tolist() == greedy(loaded, PROMPTS[0], 20, stop=True)
    streamer = Noting()
    through_folder(loaded, folder, draft=weak, rule=Exact(), streamer=streamer)
    assert streamer.put_ == [[PROMPTS[0]], *([i] for i in exact[0, 7:].tolist())]
    assert streamer.ended == 1


def test_a_heads_folder_takes_everything_by_name(
    folders: dict[str, Path], loaded: Any, head: JudgeHead, weak: PreTrainedModel
) -> None:
    """As a program must whose options are texts; a guard's markers may be texts too."""
    ids, folder = torch.tensor([PROMPTS[0]]), folders["judge"]
    by_name: dict[str, Any] = {"rule": "top_k(k=3)", "draft_length": "heuristic", "guards": "strict_start(tokens=6)"}
    judged = custom_generate(weak, rule=TopK(3), draft_length=Heuristic, guards=[StrictStart(6)])
    expected = loaded.generate(ids, custom_generate=judged, max_new_tokens=20)
    assert torch.equal(through_folder(loaded, folder, draft=weak, **by_name), expected)
    phase = Phase((int(ids[0, 2]),), (int(ids[0, 3]),), "inside")  # one that never opens again
    judged = custom_generate(weak, head, threshold=0.0, guards=[phase])
    expected = loaded.generate(ids, custom_generate=judged, max_new_tokens=20)
    words = [WORDS[int(i) - 4] for i in ids[0, 2:4]]
    spelled = f"phase(begin={words[0]}, end={words[1]}, where=inside)"
    assert torch.equal(through_folder(loaded, folder, draft=weak, threshold=0.0, guards=[spelled]), expected)
    with pytest.raises(JudgeDecodingError, match="no tokenizer here"):
        custom_generate(weak, guards=[Phase("one", "two")])
    with pytest.raises(JudgeDecodingError, match="no draft-length policy nonsense"):
        through_folder(loaded, folder, draft=weak, draft_length="nonsense")
    with pytest.raises(JudgeDecodingError):
        through_folder(loaded, folder, draft=weak, rule="nonsense")


def test_a_heads_folder_refuses_in_one_sentence(
    folders: dict[str, Path], loaded: Any, weak: PreTrainedModel, tmp_path: Path
) -> None:
    folder = folders["judge"]
    with pytest.raises(JudgeDecodingError, match="needs one draft"):
        through_folder(loaded, folder)
    with pytest.raises(JudgeDecodingError, match="needs one draft"):
        through_folder(loaded, folder, draft=weak, assistant_model=weak)
    with pytest.raises(JudgeDecodingError):
        through_folder(loaded, folder, draft=str(tmp_path / "nothing"))
    with pytest.raises(JudgeDecodingError, match="pass it as tokenizer"):
        through_folder(llama(0), folder, draft=str(folders["draft"]))
    with pytest.raises(JudgeDecodingError, match="trained for"):
        through_folder(llama(3), folder, draft=weak)
    with pytest.raises(ValueError, match="trust_remote_code"):
        loaded.generate(torch.tensor([[5]]), custom_generate=str(folder), draft=weak, trust_remote_code=False)


def test_a_heads_folder_translates_a_draft_of_other_words(
    folders: dict[str, Path], loaded: Any, tmp_path: Path
) -> None:
    other = word_tokenizer(WORDS[::-1])
    llama(5, vocab_size=len(other)).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    options = {"draft": str(tmp_path / "other"), "rule": Exact()}
    with pytest.raises(JudgeDecodingError):
        through_folder(loaded, folders["judge"], **options)
    ids = through_folder(loaded, folders["judge"], translate=True, **options)
    assert ids[0, 7:].tolist() == greedy(loaded, PROMPTS[0], 20, stop=True)


def test_loading_a_head_runs_nothing_of_its_folder(head: JudgeHead, target: Any, tmp_path: Path) -> None:
    head.save_pretrained(tmp_path / "judge")
    code = tmp_path / "judge" / "custom_generate" / "generate.py"
    assert code.read_text().count("import ") == 1
    mark = tmp_path / "mark"
    code.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nraise SystemExit(1)\n")
    (tmp_path / "judge" / "__init__.py").write_text(code.read_text())
    JudgeHead.from_pretrained(tmp_path / "judge", target)
    assert not mark.exists()
    # A changed file is run by transformers alone, and only when told to.
    with pytest.raises(SystemExit):
        through_folder(target, tmp_path / "judge", draft=target)
    assert mark.exists()


def test_a_saved_heads_card_says_how_to_use_it_in_transformers(folders: dict[str, Path]) -> None:
    bare = (folders["judge"] / "README.md").read_text()
    full = card_as_written(JudgeHead.from_pretrained(folders["judge"]), folders["judge"])
    for card in (bare, full):
        assert "custom_generate" in card.split("---")[1]  # the Hub's tag
    assert "trust_remote_code=True" in full
    assert (folders["judge"] / "custom_generate" / "requirements.txt").read_text() == "judge-decoding\n"
