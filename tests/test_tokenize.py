"""One tokenization: a prompt has the same ids wherever it is read, and an answer is what follows it there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from judge_decoding import Case, JudgeDecoder, read_cases, write_cases
from judge_decoding.data.tokens import check_tokens, fingerprint, read_tokens, split_ids, token_spans
from judge_decoding.evaluation.texts import PromptTemplate, tokenized
from judge_decoding.io.questions import Question
from judge_decoding.labelling.collect import Answer, Answering, AnswerRequest, CollectedAnswers
from judge_decoding.labelling.labels.swaps import prompt_ids as prompt_of_swaps
from judge_decoding.labelling.labels.swaps import swap_case
from judge_decoding.labelling.local_writer import LocalWriter
from judge_decoding.models.text import pieces
from judge_decoding.models.tokenize import end_ids, end_token, lead_ids, prompt_ids, split
from judge_decoding.training.labels import encode, question_examples
from tiny import WORDS, bigram, byte_fallback_tokenizer, byte_level_tokenizer, llama, perturbed, word_tokenizer

Tokenizer = PreTrainedTokenizerFast
MERGES = ("ab", "ba", "aa", "Ġa", "Ġb", "ĠĠ")


def around(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """The tokenizer, which writes the special tokens of ``template`` around a text."""
    names = [name for name in template.split() if name != "$A"]
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer


def joining_spaces() -> Tokenizer:
    """As GPT-2's: a space goes with the word behind it, so that a question's last space may belong to the answer."""
    tokenizer = byte_level_tokenizer(*MERGES)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    return tokenizer


def legacy_sentencepiece() -> Tokenizer:
    """As Llama 2's older files: a mark before every text, also behind a special token."""
    tokenizer = byte_fallback_tokenizer()
    inner = tokenizer.backend_tokenizer
    inner.pre_tokenizer = None
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "nothing around": joining_spaces,
    "begin token by template": lambda: around(joining_spaces(), "<s> $A"),
    "end token appended": lambda: around(joining_spaces(), "$A </s>"),
    "begin and end token": lambda: around(joining_spaces(), "<s> $A </s>"),
    "sentencepiece": byte_fallback_tokenizer,
    "sentencepiece with a begin token": lambda: around(byte_fallback_tokenizer(), "<s> $A"),
    "sentencepiece that appends an end token": lambda: around(byte_fallback_tokenizer(), "$A </s>"),
    "legacy sentencepiece": lambda: around(legacy_sentencepiece(), "<s> $A"),
}
TOKENIZERS = {name: make() for name, make in MAKERS.items()}
LEADS = {"begin token by template", "begin and end token", "sentencepiece with a begin token", "legacy sentencepiece"}
TEXTS = st.text(alphabet="ab é€\n", min_size=1, max_size=8)


def decoder_of(tokenizer: Tokenizer) -> JudgeDecoder:
    model = llama(0, vocab_size=len(tokenizer) + 8)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return JudgeDecoder(model, tokenizer, perturbed(model))


DECODERS = {name: decoder_of(tokenizer) for name, tokenizer in TOKENIZERS.items()}


# One prompt, one list of ids


@pytest.mark.parametrize("name", TOKENIZERS)
@given(question=TEXTS.filter(lambda text: bool(text.strip())), answer=TEXTS, ended=st.booleans())
def test_all_readings_of_a_question_are_decodings(name: str, question: str, answer: str, *, ended: bool) -> None:
    tokenizer, decoder = TOKENIZERS[name], DECODERS[name]
    prompt = decoder.encode(question)[0].tolist()
    begun = [tokenizer.bos_token_id] if name in LEADS else []
    assert prompt == begun + tokenizer(question, add_special_tokens=False)["input_ids"]
    case = Case(question=question, answer=answer, ended=ended)
    assert prompt_of_swaps(decoder, question) == prompt
    assert split_ids(case, tokenizer)[0] == prompt
    example = encode(case, tokenizer)
    assert list(example.ids[: len(prompt)]) == prompt
    assert all(label == -1 for label in example.labels[: len(prompt)])
    assert [list(one.ids) for one in question_examples([case.question], tokenizer)] == [prompt]
    assert list(example.ids[len(prompt) :]) == split_ids(case, tokenizer)[1]
    assert (example.ids[-1] == tokenizer.eos_token_id) == ended
    if answer.strip():
        text = tokenized(case, tokenizer, PromptTemplate(), size=10_000, context=None)
        assert [*text.prompt_ids] == prompt
        assert text.ids == example.ids[len(prompt) :]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(question=TEXTS, answer=TEXTS)
def test_behind_its_prompt_an_answer_is_its_text(name: str, question: str, answer: str) -> None:
    tokenizer = TOKENIZERS[name]
    found = split(question, answer, tokenizer)
    spelled = pieces(tokenizer, [*found.prompt, *found.answer])[len(found.prompt) :]
    # The decoder of SentencePiece tokenizers drops the space at the beginning of all, if nothing is before it.
    assert "".join(spelled) in ({answer, answer.removeprefix(" ")} if not question.strip() else {answer})
    assert all(0 <= begin <= end <= len(answer) for begin, end in found.spans)
    covered = {i for begin, end in found.spans for i in range(begin, end)}
    assert covered >= {i for i, sign in enumerate(answer) if sign.strip()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_a_model_said_is_what_training_reads(name: str, tmp_path: Path) -> None:
    """Random models say tokens that no text would be cut into."""
    tokenizer, folder = TOKENIZERS[name], tmp_path / "model"
    model = llama(3, vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    questions = [Question(text, text) for text in ("a", "ab b ", "a é:", "b\n")]
    found: dict[str, Answer] = {}
    how = Answering(samples=1, temperature=1.0, seed=1, max_new_tokens=12)
    writer = LocalWriter(str(folder), how)
    writer.write(
        [AnswerRequest(one, 0) for one in questions],
        lambda want, answer: found.update({want.question.prompt: answer}),
        lambda _, reason: pytest.fail(reason),
    )
    decoder = JudgeDecoder.from_pretrained(folder)
    assert lead_ids(decoder.tokenizer) == lead_ids(tokenizer)
    collected = CollectedAnswers(tmp_path / "answers.jsonl", {})
    for one in questions:
        collected.add((one.prompt, "w", 0), found[one.prompt])
    again = CollectedAnswers(tmp_path / "answers.jsonl", {})
    for question, answer in found.items():
        assert again.done[question, "w", 0] == answer
        prompt = decoder.encode(question)[0].tolist()
        assert answer.token_ids is not None
        assert list(answer.token_ids[: len(prompt)]) == prompt
        case = Case(
            question=question, answer=answer.text, ended=answer.ended, token_ids=answer.token_ids,
            tokenizer=answer.tokenizer,
        )  # fmt: skip
        write_cases(tmp_path / "case.jsonl", [case])
        (read,) = read_cases(tmp_path / "case.jsonl")
        check_tokens(read, decoder.tokenizer)
        assert encode(read, decoder.tokenizer).ids == answer.token_ids
        assert split_ids(read, decoder.tokenizer) == (prompt, list(answer.token_ids[len(prompt) :]))


def test_a_collected_answer_keeps_its_first_space(tmp_path: Path) -> None:
    """After ``q`` the model says `` cat``, which its tokenizer alone would decode without the space."""
    tokenizer = byte_fallback_tokenizer()
    ids = [tokenizer.vocab[piece] for piece in ("q", "▁", "c", "a", "t", "</s>")]
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for this, following in pairwise(ids):
        logits[this, following] = 5.0
    model = bigram(logits)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found: list[Answer] = []
    writer = LocalWriter(str(tmp_path), Answering(max_new_tokens=8))
    writer.write([AnswerRequest(Question("q", "q"), 0)], lambda _, answer: found.append(answer), lambda *_: None)
    assert (found[0].text, found[0].ended) == (" cat", True)
    # Also the text alone, as an annotator may hand it back, has the tokens of decoding.
    text = Case(question="q", answer=found[0].text)
    assert encode(text, tokenizer).ids == found[0].token_ids == (tokenizer.vocab["▁"], *ids)


# Rendered chats

CHAT = (
    "{begin}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("begin", ["{{ bos_token }}", "{{ bos_token }}\n", "\n{{ bos_token }}", ""])
@pytest.mark.parametrize("name", ["nothing around", "begin token by template", "legacy sentencepiece"])
@pytest.mark.parametrize("system", [True, False])
def test_a_rendered_chat_has_the_ids_of_the_template(name: str, begin: str, *, system: bool) -> None:
    tokenizer = MAKERS[name]()
    tokenizer.chat_template = CHAT.replace("{begin}", begin)
    messages = [{"role": "system", "content": "b"}] if system else []
    messages += [{"role": "user", "content": "ab a"}]
    options: dict[str, Any] = {"add_generation_prompt": True}
    rendered: Any = tokenizer.apply_chat_template(messages, tokenize=True, **options)
    right = rendered["input_ids"]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    assert text.count("<s>") == bool(begin)
    decoder = decoder_of(tokenizer)
    assert decoder.encode(messages)[0].tolist() == right
    assert decoder.encode(text)[0].tolist() == right
    case = Case(question=text, answer="ab")
    assert split_ids(case, tokenizer)[0] == right
    assert list(encode(case, tokenizer).ids[: len(right)]) == right
    assert decoder.generate(text, 8).token_ids == decoder.generate(messages, 8).token_ids


def test_a_plain_prompt_of_a_chat_model_has_its_begin_token() -> None:
    tokenizer = around(joining_spaces(), "<s> $A")
    tokenizer.chat_template = CHAT.replace("{begin}", "")
    assert prompt_ids("ab", tokenizer)[0] == tokenizer.bos_token_id
    # A begin token that the user wrote counts.
    assert prompt_ids("<s>ab", tokenizer) == prompt_ids("ab", tokenizer)


def test_several_tokens_before_a_text_are_there_once() -> None:
    """As GLM's ``[gMASK]<sop>``."""
    tokenizer = joining_spaces()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<g>", "<sop>"]})
    around(tokenizer, "<g> <sop> $A")
    g, sop = (tokenizer.vocab[word] for word in ("<g>", "<sop>"))
    assert lead_ids(tokenizer) == [g, sop]
    bare = tokenizer("ab", add_special_tokens=False)["input_ids"]
    for text in ("ab", "<sop>ab", "<g><sop>ab"):
        assert prompt_ids(text, tokenizer) == [g, sop, *bare]


# End tokens


@pytest.fixture
def turns() -> tuple[LlamaForCausalLM, Tokenizer, int]:
    """A model that says ``two three <end_of_turn>`` after ``one``, whose tokenizer's own end token is another."""
    tokenizer = word_tokenizer([*WORDS, "<end_of_turn>"])
    end = tokenizer.vocab["<end_of_turn>"]
    ids = [*(tokenizer.vocab[word] for word in ("one", "two", "three")), end]
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for this, following in pairwise(ids):
        logits[this, following] = 5.0
    model = bigram(logits)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    return model, tokenizer, end


@pytest.mark.parametrize("special", [True, False])
def test_the_end_token_is_the_one_the_model_says(
    turns: tuple[LlamaForCausalLM, Tokenizer, int], tmp_path: Path, *, special: bool
) -> None:
    model, tokenizer, end = turns
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    ends = end_ids(model, tokenizer)
    assert ends == (tokenizer.eos_token_id, end)
    decoder = JudgeDecoder(model, tokenizer)
    said = decoder.generate("one", 10)
    assert said.token_ids[-1] == end
    # People and checkers see no end mark.
    assert said.text == "two three"
    assert "".join(chunk.text for chunk in decoder.stream("one", 10)) == said.text
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found: list[Answer] = []
    writer = LocalWriter(str(tmp_path), Answering(max_new_tokens=8))
    writer.write([AnswerRequest(Question("one", "one"), 0)], lambda _, answer: found.append(answer), lambda *_: None)
    (answer,) = found
    assert (answer.text, answer.ended) == (" two three", True)
    case = Case(question="one", answer=" two three", token_ids=answer.token_ids, tokenizer=answer.tokenizer)
    check_tokens(case, tokenizer)
    for own in (ends, None):
        example = encode(case, tokenizer, ends=own)
        assert example.ids == (*tokenizer("one")["input_ids"], *said.token_ids)
        assert example.labels == (-1, 1, 1, 1)
    assert token_spans(case, tokenizer) == [(0, 4), (4, 10)]
    # Without ids, too, in a chat whose template writes it.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end_of_turn> {% endfor %}"
        "{% if add_generation_prompt %}up {% endif %}"
    )
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "one"}], tokenize=False, add_generation_prompt=True
    )
    assert end_token(str(asked), tokenizer, ends) == end
    assert encode(Case(question=str(asked), answer="two"), tokenizer, ends=ends).ids[-1] == end
    text = tokenized(
        Case(question=str(asked), answer="two"), tokenizer, PromptTemplate(), size=99, context=None, ends=ends
    )
    assert text.ids[-1] == end
    assert end_token("one", tokenizer, ends) == tokenizer.eos_token_id
    assert end_token("one", tokenizer, (end,)) == end
    assert end_token("one", tokenizer, ()) is None


@pytest.mark.parametrize("which", ["own", "turn"])
def test_each_end_token_can_be_labelled(turns: tuple[LlamaForCausalLM, Tokenizer, int], which: str) -> None:
    model, tokenizer, turn = turns
    end = turn if which == "turn" else tokenizer.eos_token_id
    one, two = (tokenizer.vocab[word] for word in ("one", "two"))
    ends = end_ids(model, tokenizer)
    case = swap_case(tokenizer, "one", [one], [two, end], [1], wrong=True, source="x", ends=ends)
    assert case is not None
    assert (case.answer, case.ended, case.errors) == (" two", True, ((4, 4),))
    assert encode(case, tokenizer, ends=ends).labels == (-1, -1, 0)
    assert read_tokens(case, tokenizer, ends).answer == (two, end)


# Older files


def test_ids_of_another_tokenizer_count_only_where_labels_are_about_them() -> None:
    one, other = TOKENIZERS["sentencepiece"], TOKENIZERS["nothing around"]
    ids = tuple(one("a b", add_special_tokens=False)["input_ids"])
    case = Case(question="a", answer=" b", ended=False, token_ids=ids, tokenizer=fingerprint(one))
    assert encode(case, one).ids == ids
    assert encode(case, other).ids == encode(case.model_copy(update={"token_ids": None}), other).ids


def test_an_unknown_word_across_the_seam_takes_nothing_of_the_answer() -> None:
    """``many?good`` has the id of ``many?``, as both are unknown."""
    tokenizer = word_tokenizer()
    found = split("how many?", "good bad", tokenizer)
    assert tokenizer.convert_ids_to_tokens(found.prompt) == ["<unk>", "<unk>"]
    assert tokenizer.convert_ids_to_tokens(found.answer) == ["good", "bad"]
    assert found.spans == [(0, 4), (5, 8)]


def test_regular_expressions_are_not_needed_to_follow_a_prompt() -> None:
    """A tokenizer that reads a question's last space apart still goes on with the answer by itself."""
    tokenizer = byte_level_tokenizer("ab")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\w+|\s+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    found = split("x ", "ab", tokenizer)
    assert tokenizer.convert_ids_to_tokens(found.prompt) == ["x", "Ġ"]
    assert tokenizer.convert_ids_to_tokens(found.answer) == ["ab"]
    assert found.spans == [(0, 2)]
