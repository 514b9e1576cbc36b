"""Tiny models and tokenizers built in code, and the oracles the tests compare with."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from judge_decoding.core.rounds import Round
from judge_decoding.decoding.backends.static import draft as static_draft
from judge_decoding.decoding.backends.static import lm as static_lm
from judge_decoding.decoding.backends.static.graphs import DraftGraph, TargetGraph
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest
from judge_decoding.decoding.guards import Guard
from judge_decoding.decoding.lengths import DraftLength, Fixed
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.request import Request
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import target_info
from judge_decoding.models.anatomy import anatomy
from judge_decoding.models.unwrap import unwrap
from judge_decoding.rules import Evidence, Exact, VerificationRule

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
WORDS = "one two three four five six seven eight nine ten good bad red blue up down left right cat dog".split()
EOS = SPECIALS.index("</s>")
VOCAB_SIZE = 40

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}up {% endif %}"
)


def word_tokenizer(words: Sequence[str] = WORDS, *, chat: bool = True) -> PreTrainedTokenizerFast:
    """One token a word, joined by spaces."""
    vocab = {token: i for i, token in enumerate([*SPECIALS, *words])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def with_own_code(folder: Path, mark: Path) -> None:
    """Give a saved model code of its own in every place; it makes the file ``mark`` when it runs."""
    run = f"from pathlib import Path\nPath({str(mark)!r}).write_text('run')\n"
    (folder / "own_model.py").write_text(
        f"{run}from transformers import LlamaConfig, LlamaForCausalLM\nclass OwnConfig(LlamaConfig):\n"
        "    model_type = 'own'\nclass OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    (folder / "own_tokenizer.py").write_text(
        f"{run}from transformers import PreTrainedTokenizerFast as Base\nclass OwnTokenizer(Base):\n    pass\n"
    )
    maps = {"AutoConfig": "own_model.OwnConfig", "AutoModelForCausalLM": "own_model.OwnForCausalLM"}
    tokenizer = {"AutoTokenizer": [None, "own_tokenizer.OwnTokenizer"]}
    for name, values in (
        ("config.json", {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": maps}),
        ("tokenizer_config.json", {"tokenizer_class": "OwnTokenizer", "auto_map": tokenizer}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    with_own_generate(folder, mark)


def with_own_generate(folder: Path, mark: Path) -> None:
    """Give a folder code that ``generate`` may load; it makes the file ``mark`` when it runs."""
    (folder / "custom_generate").mkdir(exist_ok=True)
    (folder / "custom_generate" / "generate.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).write_text('run')\ndef generate(model, **_):\n    pass\n"
    )


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's: single characters, a mark for the space, and a token for each byte of all other characters."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    inner = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level_tokenizer(*merges: str) -> PreTrainedTokenizerFast:
    """As GPT-2's: one token a byte, and one for each of ``merges``, two characters that are always read as one."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>", *merges]
    inner = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [(pair[0], pair[1]) for pair in merges]))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def llama(
    seed: int = 0, *, vocab_size: int = VOCAB_SIZE, hidden_size: int = 32, layers: int = 2, context: int = 256
) -> LlamaForCausalLM:
    """A random Llama whose logits are far enough apart that rounding changes no choice."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def mistral(seed: int = 0, *, sliding_window: int = 8) -> MistralForCausalLM:
    """A random model that sees only the last ``sliding_window`` tokens."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=sliding_window,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return MistralForCausalLM(config).eval().requires_grad_(False)


def perturbed(model: PreTrainedModel, noise: float = 0.02, seed: int = 1) -> PreTrainedModel:
    """A model that agrees with ``model`` often but not always: a draft."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.add_(noise * torch.randn_like(parameter))
    return other


def bigram(logits: Tensor, *, context: int = 4096) -> LlamaForCausalLM:
    """A Llama whose logits after token i are exactly ``logits[i]``, and whose hidden state at token i is a one-hot i.

    The layers add nothing, so that the distribution of every token is known; the cache works as in any Llama.
    """
    size = len(logits)
    hidden = size + size % 2
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=hidden,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=context,
        rms_norm_eps=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    layer = model.model.layers[0]
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(size, hidden))
    model.lm_head.weight.zero_()
    # The norm turns a one-hot into one of length sqrt(hidden).
    model.lm_head.weight[:, :size] = logits.T / hidden**0.5
    return model


def successor(size: int = 12) -> LlamaForCausalLM:
    """A bigram model that counts: after i comes i + 1 (modulo ``size``)."""
    logits = torch.zeros(size, size)
    for i in range(size):
        logits[i, (i + 1) % size] = 5.0
    return bigram(logits)


def chain(tokenizer: PreTrainedTokenizerFast, *pieces: str) -> LlamaForCausalLM:
    """A bigram model that says ``pieces``, single tokens, one after the other and round again."""
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in pieces]
    logits = torch.zeros(len(tokenizer), len(tokenizer))
    for this, following in zip(ids, [*ids[1:], ids[0]], strict=True):
        logits[this, following] = 5.0
    return bigram(logits)


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm between the last layer and the language-model head; None if there is no such norm."""
    name = anatomy(model).norm
    return None if name is None else unwrap(model).get_submodule(name)


def random_head(model: PreTrainedModel, seed: int = 0, *, scale: float = 1.0, **config: object) -> JudgeHead:
    """A head for ``model`` that accepts about every second token at threshold 0.5."""
    torch.manual_seed(seed)
    head = JudgeHead(JudgeHeadConfig(target=target_info(model), **config))  # type: ignore[arg-type]
    head.linear.weight.copy_(scale * torch.randn_like(head.linear.weight))
    head.linear.bias.zero_()
    return head


class Scripted(Drafter):
    """Proposes what ``script`` says: a function of the ids so far and the count asked for, which it may exceed."""

    def __init__(self, script: Callable[[list[int], int], Sequence[int]]) -> None:
        self._script = script

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(torch.tensor(list(self._script(a.ids.tolist(), a.count)), dtype=torch.long)) for a in requests]


class AcceptAll(VerificationRule):
    """Keeps everything."""

    def accept(self, evidence: Evidence) -> Tensor:
        return torch.ones_like(evidence.draft_ids, dtype=torch.bool)


def request(
    target: PreTrainedModel,
    prompt: Sequence[int],
    rule: VerificationRule | None = None,
    *,
    num_draft_tokens: int = 4,
    max_new_tokens: int = 24,
    end_ids: Iterable[int] = (),
    length: DraftLength | None = None,
    guards: Sequence[Guard] = (),
    **sampling: float,
) -> Request:
    """One answer to decode."""
    return Request(
        torch.tensor(list(prompt)),
        rule or Exact(),
        Sampler(SamplingParams(**sampling), target.device),  # type: ignore[arg-type]
        max_new_tokens,
        length=length or Fixed(num_draft_tokens),
        end_ids=frozenset(end_ids),
        guards=guards,
    )


def run(
    target: PreTrainedModel,
    drafter: Drafter | None,
    prompt: Sequence[int],
    rule: VerificationRule | None = None,
    **options: Any,
) -> list[Round]:
    """All rounds of one decoding."""
    return [event for _, event in decode(target, drafter, [request(target, prompt, rule, **options)])]


def tokens(rounds: Iterable[Round]) -> list[int]:
    """The kept tokens."""
    return [token for event in rounds for token in event.token_ids]


def greedy(model: Any, prompt: Sequence[int], count: int = 24, *, stop: bool = False, **kwargs: object) -> list[int]:
    """What transformers' own ``generate`` says; it runs past end tokens unless told to ``stop``."""
    ids = torch.tensor([list(prompt)])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=EOS if stop else None,
        pad_token_id=0,
        **kwargs,
    )
    return output[0, ids.shape[1] :].tolist()


def run_uncompiled(patch: pytest.MonkeyPatch) -> None:
    """Let the static back end run its graphs as they are, which takes no time to compile."""
    patch.setattr(static_lm, "compile_target", lambda model, places, *_, **few: TargetGraph(model, places, **few))
    patch.setattr(
        static_draft, "compile_draft", lambda model, steps, size, *_, **few: DraftGraph(model, steps, size, **few)
    )
