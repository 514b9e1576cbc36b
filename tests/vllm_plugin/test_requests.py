"""What a request can say for itself, and what no judge may override."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import engine
from pair import GRAMMAR, MAX_NEW_TOKENS, PROMPTS, Answers, are_ours, judged_by
from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.reference import pair

EIGHT = PROMPTS[:8]
END = 1  # <eos>


@pytest.fixture(scope="module")
def judged(draft: Path, plain: Answers) -> Iterator[LLM]:
    with engine(draft, {"head": str(pair.JUDGE), "logprobs": "refuse"}) as llm:
        yield llm


def params(extra: dict[str, Any] | None = None, **options: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, extra_args=extra, **options)


def ids(llm: LLM, given: SamplingParams | list[SamplingParams], texts: list[str] = EIGHT) -> Answers:
    made = llm.generate(texts, given, use_tqdm=False)
    return [(list(one.prompt_token_ids or ()), list(one.outputs[0].token_ids)) for one in made]


def test_a_batch_of_eight_has_eight_settings(judged: LLM, decoder: JudgeDecoder, plain: Answers) -> None:
    settings: list[dict[str, Any] | None] = [
        None, {"judge": "off"}, {"judge_threshold": 0.0}, {"judge_threshold": 1},
        {"judge": "on", "judge_threshold": 0.5}, {"judge": False, "judge_threshold": 0.1},
        {"another": "thing"}, {"judge_threshold": 0.3},
    ]  # fmt: skip
    thresholds = [None, 1, 0, 1, 0.5, 1, None, 0.3]
    made = ids(judged, [params(one) for one in settings])
    for one, threshold in zip(made, thresholds, strict=True):
        are_ours([one], decoder, judged_by(decoder, threshold))
    assert [a == b for a, b in zip(made, plain, strict=False)] == [t == 1 for t in thresholds]


@pytest.mark.parametrize(
    ("extra", "phrase"),
    [({"judge": "perhaps"}, 'must be "on" or "off"'), ({"judge_threshold": 1.5}, "between 0"),
     ({"judge_threshold": "high"}, "a number between"), ({"judge": "off", "judge_threshold": -1}, "between 0")],
)  # fmt: skip
def test_a_request_that_means_nothing_is_refused(judged: LLM, extra: dict[str, Any], phrase: str) -> None:
    with pytest.raises(VLLMValidationError, match=re.escape(phrase)):
        ids(judged, params(extra))


def test_log_probabilities_are_refused_unless_the_judge_is_off(judged: LLM, plain: Answers) -> None:
    with pytest.raises(VLLMValidationError, match="leave logprobs out"):
        ids(judged, params(logprobs=1))
    assert ids(judged, params({"judge": "off"}, logprobs=1)) == plain[:8]
    assert ids(judged, params({"judge_threshold": 1}, logprobs=1)) == plain[:8]


def test_a_grammar_is_kept_where_every_draft_token_is(judged: LLM) -> None:
    grammar = StructuredOutputsParams(regex=GRAMMAR)
    free = judged.generate(EIGHT, params({"judge_threshold": 0.0}, structured_outputs=grammar), use_tqdm=False)
    strict = judged.generate(EIGHT, params({"judge": "off"}, structured_outputs=grammar), use_tqdm=False)
    texts, own = [[one.outputs[0].text for one in made] for made in (free, strict)]
    for text in (*texts, *own):
        assert re.fullmatch(GRAMMAR, text), text
    assert texts != own


def test_a_choice_is_kept_where_every_draft_token_is(judged: LLM) -> None:
    choices = [f" Now we go through this {end}." for end in ("bit by bit", "slowly", "with care")]
    grammar = StructuredOutputsParams(choice=choices)
    made = judged.generate(EIGHT, params({"judge_threshold": 0.0}, structured_outputs=grammar), use_tqdm=False)
    assert {one.outputs[0].text for one in made} <= set(choices)


def test_what_is_banned_is_never_rescued(judged: LLM, decoder: JudgeDecoder) -> None:
    vocabulary = decoder.tokenizer.get_vocab()
    free = ids(judged, params({"judge_threshold": 0.0}))
    banned = {" Look", " being", " hold", " that"}
    assert all(banned & set(decoder.tokenizer.convert_ids_to_tokens(answer)) for _, answer in free)
    words = ids(judged, params({"judge_threshold": 0.0}, bad_words=[word.strip() for word in banned]))
    rest = [number for word, number in vocabulary.items() if word not in banned]
    allowed = ids(judged, params({"judge_threshold": 0.0}, allowed_token_ids=rest))
    for _, answer in (*words, *allowed):
        assert not banned & set(decoder.tokenizer.convert_ids_to_tokens(answer))


def test_min_tokens_hold(judged: LLM) -> None:
    for _, answer in ids(judged, params({"judge_threshold": 0.0}, min_tokens=100)):
        assert len(answer) >= 100
        assert END not in answer[:99]
