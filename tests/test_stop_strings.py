"""Stop strings end an answer at the very token at which transformers' ``generate`` ends it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, StopStringCriteria

from judge_decoding import JudgeDecoder, JudgeDecodingError
from judge_decoding.decoding.drafters.simple import PromptLookup
from judge_decoding.decoding.stopping import StopStrings
from tiny import bigram, byte_fallback_tokenizer, byte_level_tokenizer, perturbed, word_tokenizer


def with_mark(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    return tokenizer


TOKENIZERS = {
    "byte level": with_mark(byte_level_tokenizer("ab", "bc", "ef", "Ġa", "cĠ")),
    "byte fallback": with_mark(byte_fallback_tokenizer()),
}
SAID = "ab cef<|mark|>abc é€ a bc\nef"


def saying(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, list[int]]:
    """A model that says one token after the other of its vocabulary, in an order of its own, and its first token."""
    ids = list(dict.fromkeys(tokenizer(SAID, add_special_tokens=False)["input_ids"]))
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for this, following in zip(ids, [*ids[1:], ids[0]], strict=True):
        logits[this, following] = 5.0
    model = bigram(logits)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model, ids


STOPS = [
    "<|mark|>", "mark|>a", "f<|ma", "ab", "abc", "b c", " ", "c ", "ef", "e", "é", "€", "é€", "fab", "zz", "\n", "nev",
    ("zz", "ef"), ("<|mark|>", "c"), ("é", " "),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("stop", STOPS)
def test_an_answer_ends_where_generate_ends_it(name: str, stop: str | tuple[str, ...]) -> None:
    tokenizer = TOKENIZERS[name]
    model, ids = saying(tokenizer)
    strings = [stop] if isinstance(stop, str) else list(stop)
    prompts = [ids[:1], ids[:3], ids[-2:]]
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 24, "pad_token_id": 0}
    expected = []
    for prompt in prompts:
        row = torch.tensor([prompt])
        whole = model.generate(
            row, attention_mask=torch.ones_like(row), stop_strings=strings, tokenizer=tokenizer, **options
        )
        expected.append(tuple(whole[0, len(prompt) :].tolist()))
    # Without end tokens, as the model has none.
    for draft in (None, PromptLookup(), perturbed(model, 0.01)):
        decoder = JudgeDecoder(model, tokenizer, draft, num_draft_tokens=5)
        decoder.target.generation_config.eos_token_id = [len(tokenizer) + 99]
        rows = [torch.tensor([prompt]) for prompt in prompts]
        assert [one.token_ids for one in decoder.generate_batch(rows, 24, stop=strings)] == expected
    # With the draft model, one by one too.
    assert [decoder.generate(row, 24, stop=stop).token_ids for row in rows] == expected
    for row, right in zip(rows, expected, strict=True):
        rounds = [chunk.round for chunk in decoder.stream(row, 24, stop=strings)]
        assert tuple(token for event in rounds for token in event.token_ids) == right


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_any_tokens_end_where_the_criterion_says(name: str, data: st.DataObject) -> None:
    """Also in the middle of characters, and where a stop string begins in the prompt."""
    tokenizer = TOKENIZERS[name]
    said = sorted({*tokenizer(SAID, add_special_tokens=False)["input_ids"], *range(3, 6), len(tokenizer) - 1})
    ids = data.draw(st.lists(st.sampled_from(said), min_size=2, max_size=14))
    strings = data.draw(st.lists(st.text("abc ef|>é€", min_size=1, max_size=4), min_size=1, max_size=2))
    seam = data.draw(st.integers(1, len(ids) - 1))
    criterion = StopStringCriteria(tokenizer, strings)
    ends = (n for n in range(seam + 1, len(ids) + 1) if bool(criterion(torch.tensor([ids[:n]]), None)))
    expected = next((n - seam for n in ends), None)
    assert StopStrings(strings, tokenizer, ids[:seam])(ids[seam:]) == expected
    one_by_one, stop = None, StopStrings(strings, tokenizer, ids[:seam])
    for place, token in enumerate(ids[seam:]):
        if one_by_one is None and stop([token]):
            one_by_one = place + 1
    assert one_by_one == expected


def test_a_tokenizer_that_transformers_cannot_search() -> None:
    """It wants one that can write ``abcdef``; the text is searched all the same."""
    tokenizer = word_tokenizer()
    one, two, three = (tokenizer.vocab[word] for word in ("one", "two", "three"))
    assert StopStrings(["e two"], tokenizer, [three])([one, two, three]) == 2
    assert StopStrings(["never"], tokenizer)([one, two, three]) is None
    with pytest.raises(JudgeDecodingError, match="stop string is empty"):
        StopStrings(["one", ""], tokenizer)
