"""The static back end gives what the eager one gives: tokens, causes, verdicts. Compiled once for all of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, BloomConfig, BloomForCausalLM, LlamaForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from judge_decoding import (
    Budget,
    Confident,
    CostOptimal,
    Exact,
    Heuristic,
    Judge,
    JudgeDecoder,
    JudgeHead,
    PromptLookup,
    Round,
    Stats,
    TopK,
    Typical,
    VerificationRule,
    decode,
)
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static import draft as static_draft
from judge_decoding.decoding.backends.static.compiling import Compiled, has_few
from judge_decoding.decoding.backends.static.draft import CompiledDraft, StaticDraft
from judge_decoding.decoding.backends.static.graphs import FewTokens
from judge_decoding.decoding.backends.static.kv_cache import WIDTH_STEP, StaticKVCache
from judge_decoding.decoding.backends.static.lm import FEW, StaticLM
from judge_decoding.decoding.backends.static.requirements import check_compiles
from judge_decoding.decoding.backends.static.store import CompiledStore
from judge_decoding.decoding.backends.static.target import StaticTarget
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest, TokenBuffer
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.request import Request
from judge_decoding.errors import CannotCompileError, JudgeDecodingError
from tiny import (
    EOS,
    VOCAB_SIZE,
    AcceptAll,
    greedy,
    llama,
    perturbed,
    random_head,
    request,
    run_uncompiled,
    tokens,
    word_tokenizer,
)

pytestmark = pytest.mark.slow

PROMPTS = [[5], [1, 5, 6, 7, 8], [4 + i % 30 for i in range(70)], [9, 9, 9], [1, 30, 31], [7, 8], [3, 4, 5], [20] * 12]
SOURCES = [HiddenSource(-1, "before"), HiddenSource()]
BUDGETS = [24, 3, 90, 1, 17, 24, 31, 9]


@dataclass
class Pair:
    """A target and a draft, in both back ends."""

    model: LlamaForCausalLM
    draft: PreTrainedModel
    head: JudgeHead
    target: StaticTarget
    compiled: CompiledDraft
    said: list[str]
    folder: Path

    def drafter(self, name: str, *, static: bool) -> Drafter | None:
        if name == "draft model":
            return StaticDraft(self.compiled) if static else DraftModel(self.draft, VOCAB_SIZE)
        return PromptLookup() if name == "prompt lookup" else None

    def both(self, name: str, requests: Callable[[], list[Request]]) -> tuple[list[list[Round]], list[list[Round]]]:
        """The rounds of each request, eager and static."""
        eager, static = requests(), requests()
        return (
            collect(decode(self.model, self.drafter(name, static=False), eager), len(eager)),
            collect(decode(self.target, self.drafter(name, static=True), static), len(static)),
        )


def collect(events: object, count: int) -> list[list[Round]]:
    rounds: list[list[Round]] = [[] for _ in range(count)]
    for row, event in events:  # type: ignore[attr-defined]
        rounds[row].append(event)
    return rounds


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled() -> Iterator[None]:
    """Two steps of a draft in one call are several, too, and half the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_draft, "MOST_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("compiled")
    model = llama(0, layers=1, context=2048)
    draft, head = perturbed(model, 0.05), random_head(model, norm="after")
    said: list[str] = []
    target = StaticTarget(model, SOURCES, progress=said.append, folder=folder)
    compiled = CompiledDraft(draft, VOCAB_SIZE, progress=said.append, folder=folder)
    with pytest.MonkeyPatch.context() as patch:
        run_uncompiled(patch)
        compiled._forwards.for_sources(set())  # what reads drafts that are not greedy is a target's forward again
    return Pair(model, draft, head, target, compiled, said, folder)


def same(eager: Sequence[Round], static: Sequence[Round]) -> None:
    """All but times is the same, and figures up to rounding."""
    assert len(eager) == len(static)
    for a, b in zip(eager, static, strict=True):
        bare: dict[str, Any] = {"scores": None, "distance": None, "logprobs": None, "details": None}
        assert replace(a, **bare) == replace(b, **bare)
        assert b.scores == (None if a.scores is None else pytest.approx(a.scores, abs=1e-4))
        assert b.logprobs == (None if a.logprobs is None else pytest.approx(a.logprobs, abs=1e-4))
        assert (a.details is None) == (b.details is None)


def rules(head: JudgeHead) -> list[VerificationRule]:
    return [
        Exact(), Judge(head, 0.5), AcceptAll(), TopK(3), Judge(head, 0.3) | TopK(2), Judge(head, 0.0), Judge(head, 1.0),
        Typical(0.3, 0.3),
    ]  # fmt: skip


@pytest.mark.parametrize("drafting", ["draft model", "prompt lookup", "none"])
@pytest.mark.parametrize("number", range(8))
def test_each_rule_does_what_it_does_in_the_eager_back_end(pair: Pair, number: int, drafting: str) -> None:
    for prompt in PROMPTS[:3]:

        def requests(prompt: list[int] = prompt) -> list[Request]:
            rule = rules(pair.head)[number]
            return [request(pair.model, prompt, rule, num_draft_tokens=7, max_new_tokens=40)]

        eager, static = pair.both(drafting, requests)
        same(eager[0], static[0])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 16, 33])
@pytest.mark.parametrize("prompt", PROMPTS[:3], ids=["one token", "several", "long"])
def test_exact_says_what_generate_says(pair: Pair, prompt: list[int], length: int) -> None:
    asked = request(pair.model, prompt, num_draft_tokens=length, max_new_tokens=40)
    rounds = [event for _, event in decode(pair.target, StaticDraft(pair.compiled), [asked])]
    assert tokens(rounds) == greedy(pair.model, prompt, 40)


def test_these_drafts_are_partly_accepted_and_these_judgements_partly_rescues(pair: Pair) -> None:
    """Parity proves little otherwise."""
    asked = [request(pair.model, prompt, Judge(pair.head, 0.5), max_new_tokens=40) for prompt in PROMPTS]
    causes = Stats.of(event for _, event in decode(pair.target, StaticDraft(pair.compiled), asked)).causes
    assert min(causes.values()) > 3
    assert len(causes) == 4


@pytest.mark.parametrize("drafting", ["draft model", "prompt lookup", "none"])
def test_rows_of_a_batch_get_what_they_get_alone(pair: Pair, drafting: str) -> None:
    """Rows with other rules, lengths, budgets and end tokens beside them; rows that finish leave."""

    def requests() -> list[Request]:
        return [
            request(
                pair.model, PROMPTS[i], rules(pair.head)[i], num_draft_tokens=2 + i, max_new_tokens=BUDGETS[i],
                end_ids=[EOS] if i % 2 else [],
            )
            for i in range(8)
        ]  # fmt: skip

    eager, static = pair.both(drafting, requests)
    assert len({len(rounds) for rounds in static}) > 1
    for a, b in zip(eager, static, strict=True):
        same(a, b)


def test_several_judges_in_one_batch(pair: Pair) -> None:
    """One is asked in the forward, the others afterwards; one of them reads another place."""
    other, before = random_head(pair.model, 5, norm="after"), random_head(pair.model, 6, norm="before")

    def requests() -> list[Request]:
        heads = (pair.head, other, before)
        return [request(pair.model, [1, 5 + i, 9], Judge(head, 0.4), max_new_tokens=30) for i, head in enumerate(heads)]

    eager, static = pair.both("draft model", requests)
    assert all(any(event.scores for event in rounds) for rounds in static)
    for a, b in zip(eager, static, strict=True):
        same(a, b)


@pytest.mark.parametrize("temperature", [0.7, 2.5])
def test_sampled_answers_repeat_the_eager_ones(pair: Pair, temperature: float) -> None:
    def requests() -> list[Request]:
        return [
            request(pair.model, prompt, rule, temperature=temperature, seed=3, max_new_tokens=30)
            for prompt, rule in ((PROMPTS[1], Exact()), (PROMPTS[4], Judge(pair.head, 0.5)), (PROMPTS[0], TopK(2)))
        ]

    for a, b in zip(*pair.both("draft model", requests), strict=True):
        same(a, b)


@pytest.mark.parametrize("policy", [Heuristic, Confident])
def test_draft_length_policies(pair: Pair, policy: type[Heuristic] | type[Confident]) -> None:
    def requests() -> list[Request]:
        return [request(pair.model, PROMPTS[1], length=policy(5), max_new_tokens=60)]

    eager, static = pair.both("draft model", requests)
    assert len({len(event.draft_ids) for event in static[0]}) > 1
    same(eager[0], static[0])


def test_the_cost_optimal_length_changes_no_token_of_exact_verification(pair: Pair) -> None:
    asked = request(pair.model, PROMPTS[1], length=CostOptimal(4), max_new_tokens=100)
    rounds = [event for _, event in decode(pair.target, StaticDraft(pair.compiled), [asked])]
    assert tokens(rounds) == greedy(pair.model, PROMPTS[1], 100)


def test_guards_details_and_logprobs(pair: Pair) -> None:
    def requests() -> list[Request]:
        return [
            request(pair.model, PROMPTS[1], Judge(pair.head, 0.3), guards=[Budget(5)], max_new_tokens=40),
            replace(request(pair.model, PROMPTS[1], Judge(pair.head, 0.3), max_new_tokens=40), details=True),
            replace(request(pair.model, PROMPTS[1], max_new_tokens=40), logprobs=True),
        ]

    eager, static = pair.both("draft model", requests)
    assert static[1][0].details
    assert static[2][0].logprobs
    for a, b in zip(eager, static, strict=True):
        same(a, b)


def test_long_prompts_are_read_in_parts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge_decoding.decoding.backends.static.lm.PREFILL", 16)

    def requests() -> list[Request]:
        return [request(pair.model, prompt, Judge(pair.head, 0.5), max_new_tokens=30) for prompt in PROMPTS[:3]]

    eager, static = pair.both("draft model", requests)
    for a, b in zip(eager, static, strict=True):
        same(a, b)


def test_memory_grows(pair: Pair) -> None:
    """A draft does not know how long an answer will be."""
    asked = request(llama(0, layers=1, context=2048), [5, 6], num_draft_tokens=8, max_new_tokens=700)
    drafter = StaticDraft(pair.compiled)
    rounds = [event for _, event in decode(pair.target, drafter, [asked])]
    assert isinstance(drafter._lm, StaticLM)
    assert drafter._lm.kv_cache.allocations == 2
    eager = decode(pair.model, DraftModel(pair.draft, VOCAB_SIZE), [replace(asked)])
    assert tokens(rounds) == tokens(event for _, event in eager)


class Wrapped:
    """A drafter that hands on a compiled one's drafts where they were not made for."""

    def __init__(self, inner: Drafter, what: str) -> None:
        self.inner, self.what = inner, what
        self.before: list[Draft] = []

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if self.what == "made for other tokens":
            return self.inner.propose([replace(ask, tokens=TokenBuffer(ask.ids[:-1])) for ask in requests])
        drafts = self.inner.propose(requests)
        if self.what == "cut short":
            return [replace(draft, ids=draft.ids[:2]) for draft in drafts]
        if self.what == "another row's":
            return drafts[::-1]
        if self.what == "the first row's only":
            return [drafts[0]] * len(drafts)
        self.before, drafts = drafts, self.before
        return drafts if len(drafts) == len(requests) else self.before


@pytest.mark.parametrize(
    "what", ["cut short", "made for other tokens", "another row's", "the first row's only", "those of the round before"]
)
def test_drafts_of_something_else_change_no_token(pair: Pair, what: str) -> None:
    """A compiled draft is read as it lies there, behind its own last token: only where that is the row's."""
    prompts = PROMPTS[1:2] + PROMPTS[4:6]
    asked = [request(pair.model, prompt, num_draft_tokens=4, max_new_tokens=30) for prompt in prompts]
    rounds = collect(decode(pair.target, Wrapped(StaticDraft(pair.compiled), what), asked), len(asked))
    assert [tokens(events) for events in rounds] == [greedy(pair.model, prompt, 30) for prompt in prompts]


def test_a_draft_with_a_smaller_vocabulary(pair: Pair, uncompiled: None) -> None:
    """What it cannot read it reads as its last token, as the eager one does."""
    small = llama(3, vocab_size=VOCAB_SIZE - 7, layers=1)
    compiled = CompiledDraft(small, VOCAB_SIZE)
    for prompt in ([1, VOCAB_SIZE - 1, 5], [5, 6]):
        asked = [request(pair.model, prompt, AcceptAll(), num_draft_tokens=5, max_new_tokens=20) for _ in range(2)]
        eager = [event for _, event in decode(pair.model, DraftModel(small, VOCAB_SIZE), asked[:1])]
        same(eager, [event for _, event in decode(pair.target, StaticDraft(compiled), asked[1:])])


def test_select_moves_rows_and_lengths() -> None:
    memory = StaticKVCache(llama(0), 3, 10)
    for keys, values in memory.cache:
        keys.add_(torch.arange(3.0)[:, None, None, None])
        values.sub_(torch.arange(3.0)[:, None, None, None])
    memory.lengths = [4, 5, 6]
    memory.select([1, 2])
    assert memory.lengths == [5, 6]
    for keys, values in memory.cache:
        assert keys[:, 0, 0, 0].tolist() == [1, 2]
        assert values[:, 0, 0, 0].tolist() == [-1, -2]
    assert memory.columns(3).tolist() == list(range(WIDTH_STEP))


def test_few_tokens_have_a_forward_of_their_own(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token, a few, and more than are few; alone and in a batch."""
    forward, called, call = pair.target._forwards.for_sources(set())[1], list[Compiled](), Compiled.__call__

    def seen(self: Compiled, *inputs: object) -> list[Tensor]:
        called.append(self)
        return call(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(Compiled, "__call__", seen)
    for length, rows, few in (
        (0, 1, True),
        (1, 1, True),
        (FEW - 1, 1, True),
        (FEW, 1, False),
        (4, 4, True),
        (5, 4, False),
    ):
        called.clear()

        def requests(length: int = length, rows: int = rows) -> list[Request]:
            chosen = [Judge(pair.head, 0.4), Exact()] * 2
            return [
                request(pair.model, [1, 5 + i], rule, num_draft_tokens=length or 1, max_new_tokens=30)
                for i, rule in enumerate(chosen[:rows])
            ]

        for eager, static in zip(*pair.both("draft model" if length else "none", requests), strict=True):
            same(eager, static)
        reads = [one for one in called if one in (forward._few, forward._wide)]
        assert reads[:2] == [forward._few, forward._few if few else forward._wide]


def test_in_16_bits_there_is_no_other_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = llama(0)
    assert has_few(model) == torch.backends.mkl.is_available()
    assert not has_few(model.to(torch.bfloat16))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not has_few(model.float())


@pytest.mark.parametrize("out", [1, 7, 64, 1009, 3000])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_sums_are_the_product(out: int, bias: bool, shape: tuple[int, int]) -> None:
    """For sizes that can be cut evenly and those that cannot."""
    generator = torch.Generator().manual_seed(out)
    x, weight, more = (torch.randn(size, generator=generator) for size in ((*shape, 200), (out, 200), (out,)))
    with FewTokens():
        found = torch.nn.functional.linear(x, weight, more if bias else None)
    assert torch.allclose(found, x @ weight.t() + (more if bias else 0), atol=1e-4)


def test_it_is_compiled_once(pair: Pair) -> None:
    told = "Compiling LlamaForCausalLM ({}), once; it is kept in {}"
    assert pair.said == [told.format(what, pair.folder) for what in ("target", "target", "draft", "draft")]
    before: list[Path] = sorted(pair.folder.iterdir())
    assert [path.suffix for path in before] == [".pt2"] * 4
    said: list[str] = []
    StaticTarget(pair.model, SOURCES, progress=said.append, folder=pair.folder)
    CompiledDraft(perturbed(pair.model, 0.2, seed=9), VOCAB_SIZE, progress=said.append, folder=pair.folder)
    assert said == []
    assert sorted(pair.folder.iterdir()) == before


def test_it_is_kept_where_it_is_told_to_be(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(Compiled, "load", lambda path, *_: loaded.append(path))
    shutil.copytree(pair.folder, tmp_path, dirs_exist_ok=True)
    StaticTarget(pair.model, SOURCES, folder=tmp_path)
    CompiledDraft(pair.draft, VOCAB_SIZE, folder=tmp_path)
    assert sorted(loaded) == sorted(tmp_path.iterdir())


def test_weights_are_shared_and_never_written(pair: Pair) -> None:
    """Another model of the same shape runs with its own weights, wherever they lie; the files have room for none."""
    other = llama(7, layers=1, context=2048)
    for weight in other.parameters():  # as a file may have them: they are moved before the code is bound to them
        weight.data = torch.empty(weight.numel() + 4)[4:].view(weight.shape).copy_(weight)
    said: list[str] = []
    target = StaticTarget(other, SOURCES, progress=said.append, folder=pair.folder)
    assert not said  # nothing is compiled anew
    rounds = [event for _, event in decode(target, None, [request(other, [5, 6])])]
    assert tokens(rounds) == greedy(other, [5, 6])
    other.model.embed_tokens.weight.mul_(-1)
    rounds = [event for _, event in decode(target, None, [request(other, [5, 6])])]
    assert tokens(rounds) == greedy(other, [5, 6])


def test_eight_threads_share_what_was_compiled(pair: Pair) -> None:
    judge = Judge(pair.head)
    prompts = [[5 + i % 7, 9 + i % 11, 6 + i % 5] for i in range(24)]

    def answer(prompt: list[int], rule: VerificationRule) -> list[int]:
        asked = request(pair.model, prompt, rule)
        return tokens(event for _, event in decode(pair.target, StaticDraft(pair.compiled), [asked]))

    right = [answer(prompt, judge) for prompt in prompts]
    assert right != [answer(prompt, Exact()) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            assert list(pool.map(lambda prompt: answer(prompt, judge), prompts)) == right


@pytest.mark.parametrize("harm", ["a byte", "cut", "empty"])
def test_damaged_code_is_compiled_anew_and_never_run(pair: Pair, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "compiled"
    shutil.copytree(pair.folder, folder)
    store = CompiledStore(folder)
    keys = sorted(path.name.split("-")[0] for path in folder.iterdir())
    made = store.find(keys[0])
    assert made
    content = made.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    made.write_bytes({"a byte": flipped, "cut": content[:1000], "empty": b""}[harm])
    assert store.find(keys[0]) is None
    assert not made.exists()
    assert store.find(keys[1])


def test_a_folder_in_the_place_of_compiled_code(tmp_path: Path) -> None:
    store = CompiledStore(tmp_path)
    (tmp_path / "key-0.pt2").mkdir()
    assert store.find("key") is None
    with store.keeping() as made:
        made.write_bytes(b"code")
        (tmp_path / f"key-{hashlib.sha256(b'code').hexdigest()[:32]}.pt2").mkdir()
        with pytest.raises(CannotCompileError, match="cannot be kept in"):
            store.keep("key", made)
    (tmp_path / "file").touch()
    with pytest.raises(CannotCompileError, match="cannot be kept in"), CompiledStore(tmp_path / "file").keeping():
        raise AssertionError


def test_what_a_stopped_compilation_left_is_removed_later(tmp_path: Path) -> None:
    store = CompiledStore(tmp_path)
    new, old = tmp_path / ".unfinished-new", tmp_path / ".unfinished-old"
    for path in (new, old):
        path.mkdir()
        (path / "new.pt2").write_bytes(b"half")
    os.utime(old, (0, 0))
    with store.keeping() as made:
        made.write_bytes(b"code")
        kept = store.keep("key", made)
    assert sorted(tmp_path.iterdir()) == sorted([new, kept])
    assert store.find("key") == kept


def test_a_damaged_file_is_removed(pair: Pair, tmp_path: Path) -> None:
    made = next(path for path in pair.folder.iterdir() if path.suffix == ".pt2")
    broken = tmp_path / made.name
    broken.write_bytes(made.read_bytes()[:1000])
    with pytest.raises(CannotCompileError, match="could not be loaded and was removed"):
        Compiled.load(broken, torch.nn.Linear(1, 1), torch.device("cpu"))
    assert not broken.exists()


def bloom() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    return BloomForCausalLM(BloomConfig(**sizes, bos_token_id=1, eos_token_id=EOS, pad_token_id=0))  # type: ignore[arg-type]


def own_attention() -> PreTrainedModel:
    AttentionInterface.register("own", sdpa_attention_forward)
    AttentionMaskInterface.register("own", sdpa_mask)
    return LlamaForCausalLM._from_config(llama(0).config, attn_implementation="own")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (bloom(), "takes no positions"),
        (own_attention(), 'attn_implementation="own", not with "sdpa" or "eager"'),
    ],
)
def test_what_cannot_be_compiled_runs_eager_with_a_reason(model: PreTrainedModel, reason: str) -> None:
    decoder = JudgeDecoder(model.eval(), word_tokenizer(), model, backend="static")
    assert not decoder.fallbacks
    answer = decoder.generate(torch.tensor([5, 6, 7]), max_new_tokens=8)
    assert len(decoder.fallbacks) == 2
    assert reason in decoder.fallbacks[0]
    assert (
        answer.token_ids
        == JudgeDecoder(model, word_tokenizer()).generate(torch.tensor([5, 6, 7]), max_new_tokens=8).token_ids
    )


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CannotCompileError, match="no C\\+\\+ compiler"):
        check_compiles(llama(0))


def test_there_are_two_back_ends() -> None:
    with pytest.raises(JudgeDecodingError, match="back end is 'fast'; it must be eager or static"):
        JudgeDecoder(llama(0), word_tokenizer(), backend="fast")  # type: ignore[arg-type]
