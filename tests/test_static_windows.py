"""The static back end on models with sliding windows, sinks, soft caps and experts: it says what `generate` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from judge_decoding import Exact, Judge, PromptLookup, Stats, VerificationRule, decode
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static import lm
from judge_decoding.decoding.backends.static.draft import CompiledDraft, StaticDraft
from judge_decoding.decoding.backends.static.graphs import read
from judge_decoding.decoding.backends.static.requirements import check_compiles
from judge_decoding.decoding.backends.static.slots import new_cache
from judge_decoding.decoding.backends.static.target import StaticTarget
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.request import Request
from judge_decoding.errors import CannotCompileError
from judge_decoding.models.abilities import abilities
from tiny import VOCAB_SIZE, Scripted, greedy, perturbed, random_head, request, tokens

pytestmark = pytest.mark.filterwarnings("ignore")  # what models' own code warns of

WINDOW = 8
COUNT = 24
PROMPTS = [[5], [7, 8, 9, 10, 11], [4 + i * i % 30 for i in range(25)]]
"""The last is longer than the window, and every answer is."""

MIXED = ["sliding_attention", "full_attention"]
# One of each way to build the graph; `make zoo` has all classes, with windows, in batches.
FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {},
    "gemma2": {"query_pre_attn_scalar": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.0,
               "layer_types": MIXED},
    "gemma3_text": {"query_pre_attn_scalar": 4, "layer_types": MIXED},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": MIXED, "rope_parameters": None},
    "cohere2": {"layer_types": MIXED, "logit_scale": 0.5},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_neo": {"sliding_window": None},
    "llama4_text": {
        "attention_chunk_size": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 32,
        "layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0],
    },
}  # fmt: skip
COMPILED: dict[str, dict[str, Any]] = {
    "gemma2": {}, "gpt_oss": {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
}  # fmt: skip
"""Those that are compiled here: mixed windows with both soft caps, and a layer with sinks and experts. The others run
their graphs as they are, and `make zoo` compiles them."""


def build(family: str, **changes: Any) -> PreTrainedModel:
    """A random model of two layers, whose logits are far enough apart that rounding changes no choice."""
    given = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 256,
        "sliding_window": WINDOW, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "tie_word_embeddings": False,
    } | FAMILIES[family] | changes  # fmt: skip
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{name: value for name, value in given.items() if value is not None})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or name.endswith("sinks"):
            parameter.normal_(0.0, 0.3)
    return model


@dataclass
class Both:
    """A target and a draft in both back ends."""

    model: PreTrainedModel
    draft: PreTrainedModel
    target: StaticTarget
    compiled: CompiledDraft

    @classmethod
    def of(cls, family: str) -> Both:
        model = build(family)
        draft = perturbed(model, 0.05)
        sources = [HiddenSource(-1, "after")]
        return cls(model, draft, StaticTarget(model, sources), CompiledDraft(draft, VOCAB_SIZE))

    def answers(self, requests: Sequence[Request], drafter: Drafter | None) -> tuple[list[list[int]], Stats]:
        found: list[list[int]] = [[] for _ in requests]
        rounds = []
        for row, event in decode(self.target, drafter, requests):
            found[row] += event.token_ids
            rounds.append(event)
        return found, Stats.of(rounds)

    def requests(self, rule: VerificationRule, length: int) -> list[Request]:
        return [
            request(self.model, prompt, rule, num_draft_tokens=length, max_new_tokens=COUNT - 7 * i)
            for i, prompt in enumerate(PROMPTS)
        ]


@pytest.fixture(params=[family for family in FAMILIES if family != "gpt_neo"])
def both(request: pytest.FixtureRequest, uncompiled: None) -> Both:
    return Both.of(request.param)


def test_batches_of_uneven_prompts_get_what_generate_says(both: Both) -> None:
    wanted = [greedy(both.model, prompt, COUNT - 7 * i) for i, prompt in enumerate(PROMPTS)]
    drafted: list[tuple[Drafter | None, int]] = [(None, 1), (PromptLookup(), 4), (StaticDraft(both.compiled), 9)]
    for drafter, length in drafted:  # 9 is more than a window
        assert both.answers(both.requests(Exact(), length), drafter)[0] == wanted


def test_the_judge_decides_as_in_the_eager_back_end(both: Both) -> None:
    head = random_head(both.model, norm="after")
    asked = both.requests(Judge(head, 0.5), 4)
    found, stats = both.answers(asked, StaticDraft(both.compiled))
    assert min(stats.causes.values()) > 0
    assert len(stats.causes) == 4
    for i, rows in enumerate(zip(both.requests(Judge(head, 0.5), 4), found, strict=True)):
        eager = decode(both.model, DraftModel(both.draft, VOCAB_SIZE), [rows[0]])
        assert tokens(event for _, event in eager) == rows[1], i


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss", "cohere2"])
def test_these_windows_hide_tokens(family: str) -> None:
    """The tests above prove little otherwise."""
    wide = {"sliding_window": 128}
    narrow, without = build(family), build(family, **wide)
    without.load_state_dict(narrow.state_dict())
    assert greedy(narrow, PROMPTS[2], COUNT) != greedy(without, PROMPTS[2], COUNT)


def test_soft_caps_are_part_of_the_graph() -> None:
    """The cap of the final logits bounds them; that of the attention scores changes them."""
    model, without = build("gemma2"), build("gemma2", attn_logit_softcapping=1e6)
    without.load_state_dict(model.state_dict())
    for one in (model, without):
        one.set_attn_implementation("eager")  # the default only in newer releases
    ids = torch.tensor(PROMPTS[2:])
    size = ids.shape[1]
    logits = read(model, torch.tensor([0]), ids, torch.arange(size), new_cache(model, 1, size), size)
    assert 0.9 < logits.abs().max() < 1.0
    assert torch.allclose(logits, model(ids).logits, atol=1e-4)
    assert (model(ids).logits - without(ids).logits).abs().max() > 100 * 1e-4
    assert greedy(model, PROMPTS[2], COUNT) != greedy(without, PROMPTS[2], COUNT)


@pytest.mark.parametrize(("family", "why"), [("gpt_neo", "code of its own looks after its attention windows")])
def test_windows_that_cannot_be_compiled(family: str, why: str) -> None:
    """Windows that count columns, not positions."""
    model = build(family, attention_types=[[["global", "local"], 1]], window_size=WINDOW)
    with pytest.raises(CannotCompileError, match=why):
        check_compiles(model)


def test_rows_share_forwards_where_they_do_not_in_the_eager_back_end(uncompiled: None) -> None:
    model = build("mistral")
    assert abilities(model).cannot_batch
    assert StaticTarget(model).can_batch


@pytest.mark.slow
@pytest.mark.parametrize("family", COMPILED)
def test_compiled(family: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph, which also reads few tokens: what is compiled is what the tests above ran as it is."""
    monkeypatch.setattr(lm, "has_few", lambda _: False)
    model = build(family, **COMPILED[family])
    target = StaticTarget(model, [HiddenSource(-1, "after")], folder=tmp_path)
    wanted = [greedy(model, prompt, COUNT) for prompt in PROMPTS]

    def script(ids: list[int], count: int) -> list[int]:
        row = next(i for i, prompt in enumerate(PROMPTS) if ids[: len(prompt)] == prompt)
        right = wanted[row][len(ids) - len(PROMPTS[row]) :][: 2 + 3 * row]
        return [*right, *[3] * count][:count]

    for rule in (Exact(), Judge(random_head(model, norm="after"), 1.0)):
        found: list[list[int]] = [[] for _ in PROMPTS]
        requests = [request(model, prompt, rule, num_draft_tokens=6, max_new_tokens=COUNT) for prompt in PROMPTS]
        for row, event in decode(target, Scripted(script), requests):
            found[row] += event.token_ids
        assert found == wanted
