"""A draft model that proposes only the most frequent tokens: its output head has rows for these tokens only.

With a large vocabulary, the output head is most of the memory that a small draft reads per token. Source: FR-Spec
(arXiv 2502.14856). On disk such a draft is an ordinary model with its whole head, which any engine can load; a file
beside it lists the tokens it proposes, and the head is cut to them on loading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import replacing
from judge_decoding.io.inputs import reading
from judge_decoding.models.forward import input_rows

FILE = "draft_vocabulary.safetensors"
"""Contains ``ids``, the token ids that the draft proposes, ascending: int64 [N]."""


class CutHead(nn.Linear):
    """The rows of an output head for the tokens ``ids`` [N], ascending.

    ``full_size`` is V of the whole head; ``spreads``, whether the model's logits are expanded to it (see `cut_head`).
    """

    ids: Tensor

    def __init__(self, head: nn.Linear, ids: Tensor) -> None:
        super().__init__(head.in_features, len(ids), bias=head.bias is not None, device="meta", dtype=head.weight.dtype)
        ids = ids.to(head.weight.device)
        self.weight = nn.Parameter(head.weight.detach()[ids], requires_grad=False)
        if head.bias is not None:
            self.bias = nn.Parameter(head.bias.detach()[ids], requires_grad=False)
        self.register_buffer("ids", ids)
        self.full_size = head.out_features
        self.spreads = True

    def spread(self, logits: Tensor) -> Tensor:
        """Expand logits [..., N] to [..., V], with minus infinity for all other tokens."""
        full = logits.new_full((*logits.shape[:-1], self.full_size), -torch.inf)
        return full.index_copy(-1, self.ids, logits)


def cut_head(model: PreTrainedModel, ids: Tensor) -> None:
    """Cut the output head of ``model`` to the tokens ``ids`` [N], ascending.

    The forward pass still returns logits over the whole vocabulary, so callers need no change: tokens without a row
    have minus infinity. The logits are expanded after all processing by the model, such as a soft cap. Within `compact`
    they are not expanded.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or isinstance(head, CutHead) or head.weight.ndim != 2:
        raise JudgeDecodingError(
            f"The output head of {type(model).__name__} is a {type(head).__name__}, which cannot be cut to a smaller "
            f"vocabulary; leave the vocabulary whole (without {FILE})."
        )
    model.set_output_embeddings(CutHead(head, ids))
    model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
    model.register_forward_hook(_spread)


def cut_head_of(model: PreTrainedModel) -> CutHead | None:
    """Return the cut head of a model; None if its head is whole."""
    head = model.get_output_embeddings()
    return head if isinstance(head, CutHead) else None


@contextmanager
def compact(model: PreTrainedModel) -> Iterator[Tensor | None]:
    """Within the block, a model with a cut head returns the logits of its own tokens only, whose ids [N] this yields.

    It yields None for a model whose head is whole.
    """
    head = cut_head_of(model)
    if head is None:
        yield None
        return
    head.spreads = False
    try:
        yield head.ids
    finally:
        head.spreads = True


def _spread(model: nn.Module, _args: object, output: Any) -> Any:  # noqa: ANN401  (whatever the model gives)
    assert isinstance(model, PreTrainedModel)
    head = cut_head_of(model)
    if head is None or not head.spreads:
        return output
    if isinstance(output, tuple):
        return (head.spread(output[0]), *output[1:])
    output.logits = head.spread(output.logits)
    return output


def most_frequent(texts: Iterable[Sequence[int]], size: int, ends: Iterable[int], vocab_size: int) -> Tensor:
    """Return the ``size`` most frequent tokens of ``texts``, always including the end tokens: ids [size], ascending.

    Ties, and tokens that do not occur, are ordered by id: a tokenizer learns low ids first.
    """
    needed = {end for end in ends if end < vocab_size}
    if size <= len(needed):
        there = f"are {len(needed)} of them" if len(needed) > 1 else "is one"
        raise JudgeDecodingError(
            f"A vocabulary of {size} tokens leaves out an end token, as there {there}, and without it the "
            f"draft cannot end an answer; give --vocab {len(needed) + 1} or more."
        )
    if size >= vocab_size:
        raise JudgeDecodingError(
            f"The target's vocabulary has {vocab_size} tokens, so it cannot be cut to {size}; give a smaller --vocab, "
            "or leave it out."
        )
    counts = Counter(token for text in texts for token in text)
    ranked = sorted((token for token in range(vocab_size) if token not in needed), key=lambda one: (-counts[one], one))
    return torch.tensor(sorted([*needed, *ranked[: size - len(needed)]]))


def write_vocabulary(folder: Path, ids: Tensor) -> None:
    """Write the tokens ``ids`` [N] that the draft in ``folder`` proposes."""
    with replacing(folder / FILE) as temporary:
        save_file({"ids": ids.cpu().contiguous()}, temporary)


def read_vocabulary(path: Path, model: PreTrainedModel) -> Tensor:
    """Read the tokens [N] that a draft proposes."""
    try:
        with reading(path, "the draft's vocabulary") as file:
            ids = load(file.read()).get("ids")
    except (SafetensorError, OSError) as error:
        raise JudgeDecodingError(f"{path} is damaged ({error}); {_REMEDY}") from error
    declared = getattr(model.config, "draft_vocabulary", None)
    good = ids is not None and ids.dtype == torch.int64 and ids.ndim == 1 and len(ids) > 0
    if ids is None or not good or not bool((ids[1:] > ids[:-1]).all()):
        raise JudgeDecodingError(f"{path} does not hold an ascending list of token ids; {_REMEDY}")
    if int(ids[0]) < 0 or int(ids[-1]) >= input_rows(model):
        raise JudgeDecodingError(
            f"{path} has the token {int(ids[-1])}, and the draft has {input_rows(model)}; {_REMEDY}"
        )
    if declared is not None and declared != len(ids):
        raise JudgeDecodingError(
            f"{path} has {len(ids)} tokens, and the draft's config.json says {declared}; {_REMEDY}"
        )
    return ids


_REMEDY = "fetch or make the draft again, or remove the file to draft from the whole vocabulary."
