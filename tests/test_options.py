"""What can be chosen for each answer, through the decoder that people use."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import (
    Budget,
    Cause,
    CostOptimal,
    Exact,
    Judge,
    JudgeDecoder,
    JudgeDecodingError,
    JudgeHead,
    Phase,
    TopK,
    parse_guard,
)
from tiny import EOS, llama, perturbed

PROMPTS = ["seven four", "one", "red blue red blue red", "nine ten up down left right cat dog", "bad"]


@pytest.fixture(scope="module")
def decoder(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=4)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_batch_answers_as_alone_and_in_order(decoder: JudgeDecoder, size: int, threshold: float) -> None:
    told: list[int] = []
    answers = decoder.generate_batch(
        PROMPTS, 24, batch_size=size, threshold=threshold, progress=lambda: told.append(len(told))
    )
    assert told == list(range(5))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        alone = decoder.generate(prompt, 24, threshold=threshold)
        assert (answer.text, answer.token_ids) == (alone.text, alone.token_ids)
        assert answer.stats == alone.stats


def test_each_prompt_of_a_batch_can_have_its_seed(decoder: JudgeDecoder) -> None:
    answers = decoder.generate_batch(["one"] * 3, 24, seeds=[1, 2, 1], temperature=2.0)
    assert (
        answers[0].token_ids == answers[2].token_ids == decoder.generate("one", 24, seed=1, temperature=2.0).token_ids
    )
    assert answers[0].token_ids != answers[1].token_ids
    with pytest.raises(JudgeDecodingError, match="3 prompts and 2 seeds"):
        decoder.generate_batch(["one"] * 3, 24, seeds=[1, 2])


def test_no_prompts_and_no_batch(decoder: JudgeDecoder) -> None:
    assert decoder.generate_batch([], 24) == []
    with pytest.raises(JudgeDecodingError, match="batch_size is 0"):
        decoder.generate_batch(["one"], 24, batch_size=0)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_stop_string_ends_the_text(decoder: JudgeDecoder, threshold: float) -> None:
    whole = decoder.generate(PROMPTS[0], 40, threshold=threshold)
    words = whole.text.split(" ")
    for stop in (" ".join(words[3:5]), words[6], words[2][-1] + " " + words[3][:1]):
        cut = decoder.generate(PROMPTS[0], 40, threshold=threshold, stop=stop)
        assert stop in cut.text
        assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids
        before = decoder.tokenizer.decode(list(cut.token_ids[:-1]), skip_special_tokens=True)
        assert stop not in before
        assert cut.rounds[-1].stopped
        assert len(cut.rounds[-1].causes) == len(cut.rounds[-1].token_ids)
        streamed = "".join(
            c.text for c in decoder.stream(PROMPTS[0], 40, threshold=threshold, stop=["never said", stop])
        )
        assert streamed == cut.text


def test_an_empty_stop_string_is_refused(decoder: JudgeDecoder) -> None:
    with pytest.raises(JudgeDecodingError):
        decoder.generate("one", 4, stop=["two", ""])


def test_stop_strings_in_a_batch_end_their_row_alone(decoder: JudgeDecoder) -> None:
    whole = decoder.generate_batch(PROMPTS, 24, threshold=1.0)
    stop = whole[0].text.split(" ")[4]
    for cut, full in zip(decoder.generate_batch(PROMPTS, 24, threshold=1.0, stop=stop), whole, strict=True):
        alone = full.text if stop not in full.text else full.text[: full.text.index(stop)]
        assert cut.text.startswith(alone.rstrip())
        assert (stop in cut.text) == (stop in full.text)


def test_a_function_of_the_ids_can_draft(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    plain = JudgeDecoder(target, tokenizer).generate("one", 24)
    answer = list(plain.token_ids)

    def cheat(ids: list[int], count: int) -> list[int]:
        return answer[len(ids) - 1 :][:count]

    drafted = JudgeDecoder(target, tokenizer, cheat, num_draft_tokens=5).generate("one", 24)
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.causes[Cause.CORRECTION] == 0
    assert drafted.stats.accepted_per_round > 3
    with pytest.raises(JudgeDecodingError, match="returned int"):
        JudgeDecoder(target, tokenizer, lambda _ids, _count: 7).generate("one", 24)  # type: ignore[arg-type]


def test_guards_and_draft_lengths_through_the_decoder(decoder: JudgeDecoder) -> None:
    free = decoder.generate(PROMPTS[0], 40, threshold=0.0)
    assert free.stats.causes[Cause.RESCUED] > 3
    for answer in (
        decoder.generate(PROMPTS[0], 40, threshold=0.0, guards=[Budget(2)], draft_length=CostOptimal),
        decoder.generate_batch(PROMPTS[:2], 40, threshold=0.0, guards=[Budget(2)])[0],
    ):
        assert answer.stats.causes[Cause.RESCUED] <= 2
    # Markers are given as text; the phase never begins.
    inside = decoder.generate(PROMPTS[0], 40, threshold=0.0, guards=[Phase("cat cat cat", "dog", "inside")])
    assert inside.token_ids == decoder.generate(PROMPTS[0], 40, rule=Exact()).token_ids


@pytest.mark.parametrize("ask", ["logprobs", "for_training"])
def test_lossy_rules_are_refused_where_the_targets_own_words_are_wanted(decoder: JudgeDecoder, ask: str) -> None:
    with pytest.raises(JudgeDecodingError, match=r"not the target's own; use rule exact"):
        decoder.generate("one", 4, **{ask: True})  # type: ignore[arg-type]
    with pytest.raises(JudgeDecodingError, match="top_k"):
        decoder.generate("one", 4, rule=Exact() | TopK(3), **{ask: True})  # type: ignore[arg-type]
    for allowed in (Exact(), Judge(decoder.judge, 1.0)):  # type: ignore[arg-type]
        assert decoder.generate("one", 4, rule=allowed, **{ask: True}).token_ids  # type: ignore[arg-type]


def test_log_probabilities_are_those_of_a_fresh_forward(decoder: JudgeDecoder, target: LlamaForCausalLM) -> None:
    for temperature in (0.0, 1.0):
        answer = decoder.generate("one two", 20, rule=Exact(), logprobs=True, temperature=temperature, seed=0)
        told = [value for event in answer.rounds for value in event.logprobs or ()]
        ids = torch.cat((decoder.encode("one two")[0], torch.tensor(answer.token_ids)))[None]
        every = target(ids).logits[0].log_softmax(-1)
        first = ids.shape[1] - len(answer.token_ids)
        expected = [float(every[first + i - 1, token]) for i, token in enumerate(answer.token_ids)]
        assert told == pytest.approx(expected, abs=1e-4)
        assert all(math.isfinite(value) and value < 0 for value in told)
    assert decoder.generate("one", 4).rounds[0].logprobs is None


def test_an_unknown_option_is_a_programming_error(decoder: JudgeDecoder) -> None:
    with pytest.raises(TypeError, match="unexpected option 'temprature'"):
        decoder.generate("one", 4, temprature=1.0)  # type: ignore[call-arg]
    # What a method takes besides is among the options that are listed.
    with pytest.raises(TypeError, match=r"did you mean max_new_tokens\?.*guards, .*, max_new_tokens, "):
        decoder.stream("one", max_tokens=4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"did you mean batch_size\?.*, seeds, "):
        decoder.generate_batch(["one"], batchsize=4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ("budgt(tokens=3)", "did you mean budget"),
        ("budget(token=3)", "did you mean tokens"),
        ("budget(tokens=many)", "whole number"),
        ("budget", "needs tokens"),
        ("budget(tokens=-1)", "0 or more"),
        ("budget(tokens=1) | loop", "give each one separately"),
        ("budget(", "cannot be read"),
        ("", "guard is empty"),
    ],
)
def test_guards_that_cannot_be_read(spelling: str, says: str) -> None:
    with pytest.raises(JudgeDecodingError, match=says):
        parse_guard(spelling)


def test_a_guard_reads_back_from_its_spelling() -> None:
    for spelling in (
        "strict_start(tokens=8)",
        "budget(tokens=0)",
        "overshoot(ratio=2.5)",
        "loop(tokens=4, times=3)",
        "phase(begin='<think>', end='</think>', where=outside)",
    ):
        assert repr(parse_guard(spelling)) == spelling


@pytest.mark.slow
def test_end_tokens_inside_a_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    target = llama(0)
    decoder = JudgeDecoder(target, tokenizer, perturbed(target, 0.05))
    target.generation_config.eos_token_id = EOS
    answers = decoder.generate_batch(PROMPTS, 200, batch_size=5)
    ended = [answer for answer in answers if answer.token_ids[-1] == EOS]
    assert ended
    assert all(EOS not in answer.token_ids[:-1] for answer in answers)
