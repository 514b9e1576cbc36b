"""Text in, text out, through saved folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import (
    AnyOf,
    Cause,
    Exact,
    Judge,
    JudgeDecoder,
    JudgeDecodingError,
    JudgeHead,
    Method,
    PromptLookup,
    SamplingParams,
    Stats,
    TopK,
    VerificationRule,
    custom_generate,
)
from judge_decoding.core.rounds import Round
from tiny import EOS, VOCAB_SIZE, WORDS, byte_fallback_tokenizer, greedy, llama, random_head, request, word_tokenizer

PROMPT = "seven four"
PROMPT_IDS = [10, 7]


@pytest.fixture(scope="module")
def decoder(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=4)


def test_a_decoder_from_folders_is_the_one_from_objects(decoder: JudgeDecoder, folders: dict[str, Path]) -> None:
    loaded = JudgeDecoder.from_pretrained(
        folders["target"], draft=str(folders["draft"]), judge=folders["judge"], num_draft_tokens=4
    )
    for threshold in (0.0, 0.5, 1.0):
        ours, theirs = (d.generate(PROMPT, 24, threshold=threshold) for d in (loaded, decoder))
        assert ours.rounds == theirs.rounds
        assert ours.text == theirs.text
    assert not loaded.target.training
    assert not any(p.requires_grad for p in loaded.target.parameters())


def test_loading_passes_the_dtype_to_both_models(folders: dict[str, Path]) -> None:
    loaded = JudgeDecoder.from_pretrained(folders["target"], folders["draft"], folders["judge"], dtype=torch.bfloat16)
    assert isinstance(loaded.draft, PreTrainedModel)
    assert (loaded.target.dtype, loaded.draft.dtype) == (torch.bfloat16, torch.bfloat16)
    # The judge stays in float32.
    assert {p.dtype for p in loaded.judge.parameters()} == {torch.float32}  # type: ignore[union-attr]
    assert loaded.generate(PROMPT, 8).token_ids


def test_a_drafter_object_can_be_given_for_the_draft(folders: dict[str, Path], target: LlamaForCausalLM) -> None:
    loaded = JudgeDecoder.from_pretrained(folders["target"], draft=PromptLookup())
    assert list(loaded.generate(PROMPT, 16).token_ids) == greedy(target, PROMPT_IDS, 16, stop=True)


def test_text_chat_and_ids_are_the_same_prompt(decoder: JudgeDecoder) -> None:
    expected = decoder.generate(PROMPT, 16, threshold=1.0).token_ids
    assert decoder.generate(torch.tensor(PROMPT_IDS), 16, threshold=1.0).token_ids == expected
    assert decoder.generate(torch.tensor([PROMPT_IDS]), 16, threshold=1.0).token_ids == expected


def test_chat_messages_go_through_the_template_once(decoder: JudgeDecoder) -> None:
    messages = [{"role": "cat", "content": "one red"}, {"role": "dog", "content": "two"}]
    ids = decoder.encode(messages)[0].tolist()
    assert decoder.tokenizer.decode(ids) == "cat one red dog two up"
    assert decoder.generate(messages, 8).token_ids == decoder.generate("cat one red dog two up", 8).token_ids


def test_exact_without_a_judge_and_at_threshold_one(decoder: JudgeDecoder, target: LlamaForCausalLM) -> None:
    expected = greedy(target, PROMPT_IDS, 24, stop=True)
    assert list(JudgeDecoder(target, decoder.tokenizer, decoder.draft).generate(PROMPT, 24).token_ids) == expected
    assert list(decoder.generate(PROMPT, 24, threshold=1.0).token_ids) == expected
    assert list(decoder.generate(PROMPT, 24, rule=Exact()).token_ids) == expected


def test_the_heads_own_threshold_is_used_when_none_is_given(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    for threshold in (0.0, 1.0):
        judge = random_head(target, threshold=threshold)
        ours = JudgeDecoder(target, tokenizer, llama(7), judge, num_draft_tokens=3).generate(PROMPT, 12)
        assert (Cause.RESCUED in ours.stats.causes) == (threshold == 0.0)


def test_draft_length_comes_from_the_call_the_decoder_the_head_or_the_default(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The draft is the target itself, so that the first round keeps all of its tokens."""
    judge = random_head(target, num_draft_tokens=6)

    def first(decoder: JudgeDecoder, **kwargs: int) -> int:
        ids = decoder.encode("one two")
        return len(next(decoder.rounds(ids, 40, **kwargs)).draft_ids)  # type: ignore[arg-type]

    assert first(JudgeDecoder(target, tokenizer, target)) == 16
    assert first(JudgeDecoder(target, tokenizer, target, judge)) == 6
    assert first(JudgeDecoder(target, tokenizer, target, judge, num_draft_tokens=3)) == 3
    assert first(JudgeDecoder(target, tokenizer, target, judge, num_draft_tokens=3), num_draft_tokens=2) == 2


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_stream_joined_is_the_text(decoder: JudgeDecoder, threshold: float) -> None:
    whole = decoder.generate(PROMPT, 40, threshold=threshold)
    chunks = list(decoder.stream(PROMPT, 40, threshold=threshold))
    assert tuple(c.round for c in chunks) == whole.rounds
    assert "".join(c.text for c in chunks) == whole.text
    assert [len(c.pieces) for c in chunks] == [len(r.token_ids) for r in whole.rounds]
    assert whole.text == decoder.tokenizer.decode(list(whole.token_ids), skip_special_tokens=True)
    assert set(whole.text.split()) <= set(WORDS)


def test_the_stream_ends_with_what_an_unfinished_character_is_worth(target: LlamaForCausalLM) -> None:
    """The budget may cut a character; stream and text then end alike."""
    tokenizer = byte_fallback_tokenizer()
    model = llama(0, vocab_size=len(tokenizer))
    decoder = JudgeDecoder(model, tokenizer)
    seen = False
    for count in range(1, 12):
        whole = decoder.generate("ab", count)
        assert "".join(c.text for c in decoder.stream("ab", count)) == whole.text
        seen |= whole.text.endswith("\ufffd")
    assert seen


def test_a_generation_counts_its_rounds(decoder: JudgeDecoder) -> None:
    whole = decoder.generate(PROMPT, 20)
    assert whole.stats == Stats.of(whole.rounds)
    assert whole.token_ids == tuple(t for r in whole.rounds for t in r.token_ids)
    assert whole.stats.tokens == len(whole.token_ids)
    assert whole.seconds > 0
    assert whole.tokens_per_second == pytest.approx(len(whole.token_ids) / whole.seconds)


def test_a_generation_is_a_few_lines_however_long_it_is(decoder: JudgeDecoder) -> None:
    answer = decoder.generate(PROMPT, 24)
    text = repr(answer)
    assert f"text={answer.text!r}, finish_reason={answer.finish_reason!r}, lossy={answer.lossy}, " in text
    assert f"{len(answer.token_ids)} tokens in {len(answer.rounds)} rounds" in text
    assert len(repr(replace(answer, text="x" * 10_000))) < 800


def test_end_tokens_are_the_generation_configs_or_the_tokenizers(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = llama(0)
    decoder = JudgeDecoder(model, tokenizer)
    for given, expected in ((7, {7}), ([7, 9], {7, 9}), (None, {EOS})):
        assert model.generation_config is not None
        model.generation_config.eos_token_id = given
        assert decoder.end_ids == expected


def test_an_answer_stops_at_its_end_token(decoder: JudgeDecoder, target: LlamaForCausalLM) -> None:
    ended = 0
    for word in WORDS:
        answer = decoder.generate(word, 60, threshold=1.0)
        assert list(answer.token_ids) == greedy(target, decoder.encode(word)[0].tolist(), 60, stop=True)
        ended += answer.rounds[-1].stopped
        assert EOS not in answer.token_ids[:-1]
    assert ended > 3


def test_the_context_length_ends_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = llama(0, context=20)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = 39
    tokenizer = word_tokenizer()
    ids = torch.tensor([[5] * 12])
    assert len(JudgeDecoder(model, tokenizer, model).generate(ids, 50).token_ids) == 8
    short_draft = llama(0, context=16)  # it stops drafting, and the target goes on
    assert len(JudgeDecoder(model, tokenizer, short_draft).generate(ids, 50).token_ids) == 8
    assert len(JudgeDecoder(model, tokenizer, PromptLookup()).generate(ids, 50).token_ids) == 8


def test_a_decoder_answers_again_and_interleaved_as_if_alone(decoder: JudgeDecoder) -> None:
    """No state is left between answers, nor shared by two streams at once."""
    alone = [decoder.generate(p, 16).rounds for p in ("one", "two three")]
    assert decoder.generate("one", 16).rounds == alone[0]
    first, second = (decoder.stream(p, 16) for p in ("one", "two three"))
    mixed: tuple[list[Round], list[Round]] = ([], [])
    streams = [(first, mixed[0]), (second, mixed[1])]
    while streams:
        for stream, seen in list(streams):
            chunk = next(stream, None)
            if chunk is None:
                streams.remove((stream, seen))
            else:
                seen.append(chunk.round)
    assert [tuple(m) for m in mixed] == alone


def test_a_seed_repeats_an_answer(decoder: JudgeDecoder) -> None:
    first = decoder.generate(PROMPT, 24, temperature=1.0, seed=1)
    assert decoder.generate(PROMPT, 24, sampling=SamplingParams(temperature=1.0, seed=1)).rounds == first.rounds
    assert decoder.generate(PROMPT, 24, temperature=1.0, seed=2).rounds != first.rounds


def test_a_rule_and_a_threshold_exclude_each_other(decoder: JudgeDecoder, target: LlamaForCausalLM) -> None:
    with pytest.raises(JudgeDecodingError, match="not both"):
        decoder.generate(PROMPT, 4, rule=TopK(2), threshold=0.5)
    with pytest.raises(JudgeDecodingError, match="needs a judge"):
        JudgeDecoder(target, decoder.tokenizer).generate(PROMPT, 4, threshold=0.5)


def test_a_rule_replaces_the_judge(decoder: JudgeDecoder, head: JudgeHead) -> None:
    assert decoder.generate(PROMPT, 8, rule=TopK(2)).rounds[0].scores is None
    assert (
        decoder.generate(PROMPT, 8, rule=Judge(head, 0.3)).rounds == decoder.generate(PROMPT, 8, threshold=0.3).rounds
    )


def test_a_rule_may_be_given_by_its_spelling(decoder: JudgeDecoder, head: JudgeHead) -> None:
    for spelling, rule in (("top_k(k=2)", TopK(2)), ("judge(threshold=0.3)", Judge(head, 0.3)), ("exact", Exact())):
        found, wanted = (decoder.generate(PROMPT, 8, rule=each) for each in (spelling, rule))
        assert found.rounds == wanted.rounds
        batch = decoder.generate_batch([PROMPT, PROMPT], 8, rule=spelling)
        assert [answer.token_ids for answer in batch] == [wanted.token_ids] * 2
        assert [chunk.round for chunk in decoder.stream(PROMPT, 8, rule=spelling)] == list(wanted.rounds)
        ids = decoder.encode(PROMPT)
        judged = custom_generate(decoder.draft, head, spelling, num_draft_tokens=decoder.num_draft_tokens)
        output = decoder.target.generate(ids, custom_generate=judged, max_new_tokens=8)  # type: ignore[operator]
        assert output[0, ids.shape[1] :].tolist() == list(wanted.token_ids)
        assert str(Method(decoder, spelling).rule) == str(rule)  # type: ignore[arg-type]


def test_what_is_no_rule_is_refused(decoder: JudgeDecoder) -> None:
    for wrong in cast("tuple[Any, ...]", (TopK, 4, ["exact"])):
        for work in (
            lambda: decoder.generate(PROMPT, 4, rule=wrong),  # noqa: B023  (called at once)
            lambda: Method(decoder, wrong),  # noqa: B023
            lambda: AnyOf(Exact(), wrong),  # noqa: B023
            lambda: request(decoder.target, [5], wrong),  # noqa: B023
        ):
            with pytest.raises(JudgeDecodingError, match="is not a verification rule; give one such as"):
                work()
    with pytest.raises(JudgeDecodingError, match="There is no rule exakt"):
        decoder.generate(PROMPT, 4, rule="exakt")


def test_prompt_ids_may_use_the_padding_of_the_vocabulary(decoder: JudgeDecoder) -> None:
    assert decoder.generate(torch.tensor([VOCAB_SIZE - 1]), 4).token_ids


@pytest.mark.parametrize(("rule", "temperature"), [(Exact(), 0.0), (Exact(), 1.0), (TopK(1), 1.0)])
def test_a_lossless_answer_says_so(decoder: JudgeDecoder, rule: VerificationRule, temperature: float) -> None:
    assert not decoder.generate(PROMPT, 12, rule=rule, temperature=temperature, seed=0).lossy


def test_a_lossy_answer_says_so(decoder: JudgeDecoder) -> None:
    """Greedy: where a token was rescued, and only there; above temperature 0 the rule alone makes it lossy."""
    answers = {text: decoder.generate(text, 12, threshold=0.5) for text in (PROMPT, "one", "two six", "nine nine")}
    for text, answer in answers.items():
        rescued = any(Cause.RESCUED in event.causes for event in answer.rounds)
        assert answer.lossy == rescued
        assert rescued or answer.token_ids == decoder.generate(text, 12, rule=Exact()).token_ids
    assert any(one.lossy for one in answers.values())
    assert decoder.generate(PROMPT, 12, rule=TopK(2), temperature=1.0, seed=0).lossy


def test_a_stream_says_from_where_on_it_is_lossy(decoder: JudgeDecoder) -> None:
    chunks = list(decoder.stream(PROMPT, 24, threshold=0.5))
    rescued = [Cause.RESCUED in chunk.round.causes for chunk in chunks]
    first = rescued.index(True)
    assert [chunk.lossy for chunk in chunks] == [False] * first + [True] * (len(chunks) - first)
    assert not any(chunk.lossy for chunk in decoder.stream(PROMPT, 24, rule=Exact()))
    assert all(chunk.lossy for chunk in decoder.stream(PROMPT, 24, rule=TopK(2), temperature=1.0, seed=0))
