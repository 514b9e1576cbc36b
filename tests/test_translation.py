"""A draft with another tokenizer: what it proposes is the text it drafted, in the target's tokens, or nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import JudgeDecoder, JudgeDecodingError, JudgeHead, Stats, TranslatingDraft
from judge_decoding.decoding.drafters.base import Draft, DraftRequest, TokenBuffer
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from judge_decoding.models.text import decode_ids
from judge_decoding.rules.base import VerificationRule
from tiny import (
    EOS,
    WORDS,
    AcceptAll,
    bigram,
    byte_fallback_tokenizer,
    byte_level_tokenizer,
    chain,
    greedy,
    llama,
    mistral,
    request,
    run,
    tokens,
    word_tokenizer,
)

LETTERS = byte_level_tokenizer()
PAIRS = byte_level_tokenizer("ab", "cd", "ef")
OTHER_PAIRS = byte_level_tokenizer("bc", "de", "fa")
SHUFFLED = word_tokenizer(random.Random(0).sample(WORDS, len(WORDS)), chat=False)


def ask(ids: Sequence[int], count: int = 6, row: int = 0) -> DraftRequest:
    return DraftRequest(
        row, TokenBuffer(torch.tensor(list(ids))), count, Sampler(SamplingParams(), torch.device("cpu"))
    )


def propose(drafter: TranslatingDraft, ids: Sequence[int], count: int = 6) -> list[int]:
    (draft,) = drafter.propose([ask(ids, count)])
    assert draft.probs is None
    return draft.ids.tolist()


class Watched(TranslatingDraft):
    """Notes what was proposed after what, and checks that it is the target's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.proposed: list[int] = []

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = super().propose(requests)
        for each, draft in zip(requests, drafts, strict=True):
            self.proposed.append(len(draft.ids))
            assert len(draft.ids) <= each.count
            before, after = (
                decode_ids(self._target, ids.tolist()) for ids in (each.ids, torch.cat((each.ids, draft.ids)))
            )
            assert after.startswith(before)
        return drafts


def speller(tokenizer: PreTrainedTokenizerFast, cycle: str) -> LlamaForCausalLM:
    """A model that goes round the letters of ``cycle``, wherever its tokens begin and end."""
    vocab = {piece: i for piece, i in tokenizer.get_vocab().items() if piece in cycle + cycle}
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for piece, i in vocab.items():
        rest = (cycle * 3)[(cycle * 2).index(piece) + len(piece) :]
        logits[i, vocab[max(filter(rest.startswith, vocab), key=len)]] = 5.0
    return bigram(logits)


# The same function of the text, in tokens that begin at the same places or at others.
PAIRINGS = {
    "letters for pairs": (PAIRS, LETTERS),
    "pairs for letters": (LETTERS, PAIRS),
    "pairs for other pairs": (PAIRS, OTHER_PAIRS),
}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_draft_that_says_the_same_text_is_accepted(pairing: str) -> None:
    ours, theirs = PAIRINGS[pairing]
    target = speller(ours, "abcdef")
    for start in ("abc", "bcdef", "a"):
        prompt = ours(start)["input_ids"]
        drafter = Watched(speller(theirs, "abcdef"), theirs, ours)
        rounds = run(target, drafter, prompt, num_draft_tokens=6, max_new_tokens=40)
        assert tokens(rounds) == tokens(run(target, None, prompt, max_new_tokens=40))
        # Only a last token may be half of what the target says: where the draft's text stops in the middle of it.
        assert all(len(r.draft_ids) - r.accepted <= (ours == PAIRS) for r in rounds)
        assert Stats.of(rounds).accepted_per_round > 2


def test_a_draft_that_numbers_the_same_words_otherwise_is_accepted_whole() -> None:
    words = word_tokenizer()
    drafter = Watched(chain(SHUFFLED, *WORDS), SHUFFLED, words)
    rounds = run(chain(words, *WORDS), drafter, words("one two")["input_ids"], num_draft_tokens=4, max_new_tokens=40)
    assert [r.accepted for r in rounds] == [4] * 8
    assert tokens(rounds) == words(" ".join((WORDS * 3)[2:42]))["input_ids"]


TOKENIZERS = {
    "words": word_tokenizer,
    "shuffled": lambda: SHUFFLED,
    "letters": byte_level_tokenizer,
    "pairs": lambda: byte_level_tokenizer("ab", "bc", "cd", "Ġa"),
    "Llama 2's": byte_fallback_tokenizer,
}


@cache
def random_target(name: str) -> LlamaForCausalLM:
    return llama(0, vocab_size=len(TOKENIZERS[name]()) + 3)


@cache
def said(name: str, prompt: tuple[int, ...]) -> list[int]:
    return greedy(random_target(name), prompt, 20)


@pytest.mark.slow
@pytest.mark.parametrize("ours", TOKENIZERS)
@pytest.mark.parametrize("theirs", TOKENIZERS)
def test_exact_verification_says_what_the_target_says_whatever_is_proposed(ours: str, theirs: str) -> None:
    """Random models say every kind of token: bytes of unfinished characters, unknown ones, ends."""
    tokenizer, other = TOKENIZERS[ours](), TOKENIZERS[theirs]()
    target = random_target(ours)
    drafter = Watched(llama(1, vocab_size=len(other) + 5), other, tokenizer)
    for prompt in ([9, 7], [1, 8, 9, 2, 10, 4], list(range(len(tokenizer) - 1, 4, -3))):
        events = run(target, drafter, prompt, num_draft_tokens=5, max_new_tokens=20)
        assert tokens(events) == said(ours, tuple(prompt))
    # Letters hardly ever make a word.
    assert any(drafter.proposed) or (ours in ("words", "shuffled") and theirs not in ("words", "shuffled"))


def test_any_text_is_continued_by_its_own_tokens() -> None:
    """What a tokenizer says of a text cut anywhere, also within its tokens or characters."""
    texts = ["one two abcd", "für 3 Bücher €", "a  b\n c", "日本語 text 🦙 ok"]
    for name in ("letters", "pairs", "Llama 2's"):
        tokenizer = TOKENIZERS[name]()
        drafter = TranslatingDraft(llama(0, vocab_size=len(LETTERS)), LETTERS, tokenizer)
        for text in texts:
            for cut in range(1, len(text)):
                tail = tokenizer(text[:cut], add_special_tokens=False)["input_ids"][-16:]
                before = decode_ids(tokenizer, tail)
                new, said = drafter._continued(tail, text[cut:])
                assert decode_ids(tokenizer, tail + new) == before + said
                # Llama 2's tokenizer puts a space before what it encodes by itself, and eats one at the beginning.
                assert said == text[cut:] or name == "Llama 2's"
                assert said


def test_a_token_across_the_end_of_the_text_is_not_proposed() -> None:
    """After the letter "a" the text "ab" would be one token, which the target did not say."""

    def target_ids(pieces: list[str]) -> list[int]:
        return [PAIRS.vocab[piece] for piece in pieces]

    drafter = TranslatingDraft(chain(LETTERS, *"abcdef"), LETTERS, PAIRS)
    assert propose(drafter, target_ids(["ab", "cd"]), 4) == target_ids(["ef", "ab"])
    assert propose(drafter, target_ids(["cd", "e"]), 5) == target_ids(["f", "ab", "cd"])
    # An odd way to write what is before is as good as another.
    assert propose(drafter, target_ids(["a", "b", "cd"]), 4) == target_ids(["ef", "ab"])


def test_nothing_is_proposed_within_a_character() -> None:
    draft = chain(LETTERS, *"abcdef")
    drafter = TranslatingDraft(draft, LETTERS, LETTERS)
    euro = LETTERS("€")["input_ids"]
    assert len(euro) == 3
    ids = LETTERS("ab")["input_ids"]
    assert propose(drafter, ids, 2) == LETTERS("cd")["input_ids"]
    draft.get_decoder().register_forward_hook(lambda *_: pytest.fail("the draft was asked for nothing"))
    assert propose(drafter, ids + euro[:2]) == []
    # The draft ends within one: what is whole is proposed.
    says_euro = TranslatingDraft(chain(LETTERS, *LETTERS.convert_ids_to_tokens(ids + euro)), LETTERS, LETTERS)
    assert propose(says_euro, ids, 3) == euro
    assert propose(says_euro, ids, 2) == []
    assert propose(says_euro, ids, 5) == euro + ids


def test_texts_the_target_cannot_write_are_left_out() -> None:
    """What was drafted before them is proposed."""
    words = word_tokenizer(["a", "b", "c"])
    other = word_tokenizer(["c", "b", "a", "z"])
    drafter = TranslatingDraft(chain(other, "a", "b", "z"), other, words)
    assert words.decode(propose(drafter, words("c a")["input_ids"])) == "b"
    assert propose(drafter, words("b")["input_ids"]) == []
    assert propose(TranslatingDraft(chain(other, "a", "<pad>"), other, words), words("a")["input_ids"]) == []


@pytest.mark.parametrize("name", ["</s>", "right"])
def test_an_end_token_is_the_targets_own_and_ends_the_draft(name: str) -> None:
    words, other = word_tokenizer(), word_tokenizer(WORDS[::-1], chat=False)
    other.eos_token = name
    drafter = TranslatingDraft(chain(other, "two", "three", name, "four"), other, words)
    assert propose(drafter, words("two")["input_ids"]) == [*words("three")["input_ids"], EOS]
    assert propose(drafter, words("two")["input_ids"], 1) == words("three")["input_ids"]


def test_the_texts_own_end_token_in_the_prompt_is_the_drafts() -> None:
    """A chat has end tokens between its turns; both are read as what they are."""
    words = word_tokenizer()
    drafter = TranslatingDraft(chain(SHUFFLED, "</s>", "cat", "dog"), SHUFFLED, words)
    assert words.decode(propose(drafter, [*words("one")["input_ids"], EOS], 2)) == "cat dog"


def test_the_draft_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache keeps what the next text has in common with the last."""
    draft = chain(LETTERS, *"abcdef")
    sizes: list[int] = []
    draft.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: sizes.append(inputs[0].shape[1]))
    drafter = TranslatingDraft(draft, LETTERS, LETTERS)
    ids = LETTERS("abcdef" * 5)["input_ids"]
    propose(drafter, ids, 3)
    assert sizes == [29, 1, 1, 1]
    sizes.clear()
    propose(drafter, ids + LETTERS("abc")["input_ids"], 3)  # all accepted, then one token
    assert sum(sizes) == 3
    sizes.clear()
    propose(drafter, ids + LETTERS("abcdxx")["input_ids"], 1)
    assert sum(sizes) == 2
    sizes.clear()
    other = LETTERS("abcdef" * 3 + "x")["input_ids"]  # another text altogether
    assert propose(drafter, other, 2) == propose(TranslatingDraft(draft, LETTERS, LETTERS), other, 2)


@pytest.mark.parametrize("windows", [False, True])
def test_an_answer_does_not_depend_on_what_was_drafted_before_or_beside_it(windows: bool) -> None:
    """Everything drafted is kept, so that the answers are those of the draft."""
    tokenizer = byte_fallback_tokenizer()
    target = llama(0, vocab_size=len(tokenizer))
    if windows:
        draft: PreTrainedModel = mistral(3)
        other = word_tokenizer([*WORDS, *"abcdefghijkl"])
    else:
        other = LETTERS
        draft = llama(3, vocab_size=len(other))
    texts = ("one two", "a b c d e f g " * 3, "a b c d e f g " * 2 + "one", "bad cat")
    prompts = [tokenizer(text)["input_ids"] for text in texts]

    def answers(drafters: list[TranslatingDraft]) -> list[list[int]]:
        return [
            tokens(run(target, drafter, prompt, AcceptAll(), max_new_tokens=30))
            for drafter, prompt in zip(drafters, prompts, strict=True)
        ]

    alone = answers([TranslatingDraft(draft, other, tokenizer) for _ in prompts])
    shared = TranslatingDraft(draft, other, tokenizer)
    assert answers([shared] * 4) == alone
    together: list[list[int]] = [[] for _ in prompts]
    requests = [request(target, prompt, AcceptAll(), max_new_tokens=30) for prompt in prompts]
    for row, event in decode(target, shared, requests):
        together[row].extend(event.token_ids)
    assert together == alone


def test_a_full_context_of_the_draft_ends_drafting_not_the_answer() -> None:
    words = word_tokenizer()
    target = chain(words, *WORDS)
    draft = bigram(chain(SHUFFLED, *WORDS).lm_head.weight.T[: len(SHUFFLED)] * 5, context=12)
    rounds = run(
        target, TranslatingDraft(draft, SHUFFLED, words), words("one two three")["input_ids"], max_new_tokens=20
    )
    assert len(tokens(rounds)) == 20
    assert [len(r.draft_ids) for r in rounds][-5:] == [0] * 5
    assert max(len(r.draft_ids) for r in rounds) > 0


def test_scaled_positions_extend_the_context_of_the_draft() -> None:
    words = word_tokenizer()
    draft = bigram(chain(SHUFFLED, *WORDS).lm_head.weight.T[: len(SHUFFLED)] * 5, context=12)
    draft.config.rope_parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
    prompt = words("one two three")["input_ids"]
    rounds = run(chain(words, *WORDS), TranslatingDraft(draft, SHUFFLED, words), prompt, max_new_tokens=20)
    assert any(r.draft_ids for r in rounds[-5:])


def test_what_the_draft_must_read_first_is_there_once() -> None:
    """A begin token that the draft's tokenizer puts first, whether or not the target's text has one."""
    from tokenizers import processors

    other = byte_level_tokenizer()
    other.add_special_tokens({"bos_token": "<s>"})
    begin = other.bos_token_id
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    assert other("a")["input_ids"][0] == begin
    words = word_tokenizer()
    draft = llama(0, vocab_size=len(other))
    read: list[list[int]] = []
    draft.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0][0].tolist()))
    drafter = TranslatingDraft(draft, other, words)
    for ids in ([4, 5], [1, 4, 5]):
        read.clear()
        propose(drafter, ids, 1)
        drafter._model._read.clear()
        assert sum(read, [])[0] == begin  # noqa: RUF017
        assert sum(read, []).count(begin) == 1  # noqa: RUF017


@pytest.fixture(scope="module")
def folders_of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target and a draft that say the same words and number them differently."""
    root = tmp_path_factory.mktemp("two")
    for name, tokenizer in (("target", word_tokenizer()), ("draft", SHUFFLED)):
        chain(tokenizer, *WORDS).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root / "target", root / "draft"


def test_a_decoder_translates_when_told_to(folders_of_two: tuple[Path, Path]) -> None:
    target, draft = folders_of_two
    with pytest.raises(JudgeDecodingError, match=r"different vocabularies.* translate=True"):
        JudgeDecoder.from_pretrained(target, draft)
    decoder = JudgeDecoder.from_pretrained(target, draft, translate=True, num_draft_tokens=4)
    answer = decoder.generate("one two", 10)
    assert answer.text == " ".join(WORDS[2:12])
    assert answer.stats.accepted_per_round == 4
    # Where the vocabularies are the same there is nothing to translate.
    assert isinstance(JudgeDecoder.from_pretrained(target, target, translate=True).draft, LlamaForCausalLM)


def test_rules_that_need_what_no_translation_has_say_so() -> None:
    class Needy(VerificationRule):
        name = "needy"
        needs_draft_probs = True

        def accept(self, evidence: Any) -> torch.Tensor:
            return evidence.draft_distributions(self)[..., 0] > 0

    words = word_tokenizer()
    drafter = TranslatingDraft(chain(SHUFFLED, *WORDS), SHUFFLED, words)
    with pytest.raises(JudgeDecodingError, match="needy"):
        run(chain(words, *WORDS), drafter, words("one two")["input_ids"], Needy())


@pytest.mark.slow
def test_sampling_keeps_the_targets_distribution() -> None:
    """The draft always says "a"; the target tosses a coin, and so must the answers."""
    words, other = word_tokenizer(["a", "b"]), word_tokenizer(["b", "a"])
    logits = torch.full((len(words), len(words)), -torch.inf)
    a, b = (words.vocab[word] for word in ("a", "b"))
    logits[:, a], logits[:, b] = 0.0, float(torch.tensor(3.0).log())
    target, drafter = bigram(logits.clamp(min=-50)), TranslatingDraft(chain(other, "a", "a"), other, words)
    events = run(target, drafter, [a], max_new_tokens=600, temperature=1.0, seed=0)
    said = tokens(events)
    assert Stats.of(events).accepted > 20
    assert 0.7 < said.count(b) / len(said) < 0.8


def test_a_judge_may_rescue_what_was_translated(folders_of_two: tuple[Path, Path]) -> None:
    target, draft = folders_of_two
    loaded = JudgeDecoder.from_pretrained(target, draft, translate=True, num_draft_tokens=3)
    assert isinstance(loaded.draft, TranslatingDraft)
    contrary = chain(SHUFFLED, *reversed(WORDS))
    drafter = TranslatingDraft(contrary, SHUFFLED, loaded.tokenizer)
    from tiny import random_head

    head: JudgeHead = random_head(loaded.target)
    answer = JudgeDecoder(loaded.target, loaded.tokenizer, drafter, head).generate("cat", 3, threshold=0.0)
    assert answer.text.split()[:2] == WORDS[::-1][WORDS[::-1].index("cat") + 1 :][:2]
