"""The training features of a head: the target's hidden states over labelled answers, and a disk cache of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cache_folder, replacing
from judge_decoding.io.inputs import MOST, reading
from judge_decoding.models.teacher_forcing import BATCH_TOKENS, log_probability, read_given
from judge_decoding.models.weights import adapters, sample, tensors
from judge_decoding.training.labels import Example

_PART = 256
"""Tokens whose probabilities over the vocabulary are computed together."""

LOG_PROBABILITY, RANK = "log-probability", "rank"
"""The trivial detectors: the target's log-probability of the token, and how many tokens it found more probable."""

BASELINES = (LOG_PROBABILITY, RANK)

Column = HiddenSource | str
"""A feature of every token: its hidden state [H] from a source, or the number of one of `BASELINES`."""


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    kept: Sequence[Sequence[int]],
    columns: Sequence[Column],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, dict[Column, Tensor]]]:
    """Read every sequence once and yield the requested features of its tokens; see `read_given`.

    Only the logits that a baseline needs are computed, except in models that cannot compute a part of them.

    Args:
        model: any causal LM.
        sequences: token ids.
        kept: the positions to read in each sequence, ascending; a sequence without positions is not read.
        columns: the features to read at these positions.
        batch_tokens: the most tokens of a forward pass.

    Yields:
        the index of a sequence and, by column, a tensor on the CPU: [n, H] in the model's dtype or, for a baseline,
            float32 [n]. A first token has no prediction; it counts as certain.

    Raises:
        JudgeDecodingError: the model has no such layer, or logits that a baseline needs are not finite.
    """
    sources = [column for column in columns if isinstance(column, HiddenSource)]
    baselines = len(sources) < len(columns)
    pieces = read_given(model, sequences, kept, sources=sources, logits=baselines, batch_tokens=batch_tokens)
    for i, own in groupby(pieces, key=lambda piece: piece.number):
        first = torch.zeros(int(kept[i][0] == 0))
        found: dict[Column, list[Tensor]] = {source: [] for source in sources}
        found |= {name: [first] for name in BASELINES if baselines}
        for piece in own:
            for source in sources:
                found[source].append(piece.states[source].cpu())
            ids = torch.tensor(sequences[i])[piece.positions]
            for logits, tokens in zip(piece.logits.split(_PART), ids.split(_PART), strict=True):
                if baselines:
                    probable = log_probability(logits, tokens)
                    found[LOG_PROBABILITY].append(probable)
                    better = logits > logits.gather(-1, tokens[:, None].to(logits.device))
                    found[RANK].append(-better.sum(-1).float().cpu())
        yield i, {column: torch.cat(parts) for column, parts in found.items()}


SHARD_BYTES = 2**23
"""Size at which a shard is written. It bounds what a killed run loses and what is held in memory."""

_SAMPLES = 64


def default_folder() -> Path:
    """The folder in the user's cache directory where the command line keeps features. It is safe to delete."""
    return cache_folder("features")


class FeatureCache:
    """The features of one model, in a folder of its own in ``folder``, as safetensors shards.

    The header of a shard lists its answers and the model they belong to, and its name is the hash of its content. A
    shard that is truncated, changed or from another model is ignored, and its answers are read again. A model is
    identified by configuration, precision and a sample of all weights. The key of an answer is its token ids and the
    positions kept, so neither the reading of the labels nor the training settings matter here.
    """

    def __init__(self, folder: Path, model: PreTrainedModel, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._model, self._shard_bytes = model, shard_bytes
        self._key = _model_key(model)
        self.folder = folder / self._key
        # By column and answer: the shard, the row at which the answer begins, and its number of tokens.
        self._index: dict[tuple[str, str], tuple[Path, int, int]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            self._enter(path)

    def add(
        self,
        examples: Sequence[Example],
        columns: Sequence[Column],
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read the answers that ``columns`` still lack; call ``progress`` with the number of examples just done.

        Raises:
            JudgeDecodingError: the folder cannot be written, or the model has no such layer.
        """
        keyed = [(_answer_key(example), example) for example in examples if example.judged]
        todo = {key: example for key, example in keyed if any((str(c), key) not in self._index for c in columns)}
        wanted = [column for column in columns if any((str(column), key) not in self._index for key in todo)]
        copies = Counter(key for key, _ in keyed)
        progress(len(examples) - sum(copies[key] for key in todo))
        keys, waiting, size = list(todo), _Shard(), 0
        sequences, kept = [e.ids for e in todo.values()], [e.judged for e in todo.values()]
        for i, found in read(self._model, sequences, kept, wanted, batch_tokens=batch_tokens):
            size += waiting.add(keys[i], {str(column): found[column] for column in wanted})
            progress(copies[keys[i]])
            if size >= self._shard_bytes:
                self._enter(waiting.write(self.folder, self._key))
                waiting, size = _Shard(), 0
        if size:
            self._enter(waiting.write(self.folder, self._key))

    def fill(self, out: Tensor, column: Column, examples: Sequence[Example], used: Sequence[Tensor]) -> None:
        """Copy a column into ``out`` [N, ...]: the judged tokens of every example that are ``used`` (bool [n_i])."""
        by_shard: dict[Path, list[tuple[int, int, int, Tensor]]] = {}
        first = 0
        for example, chosen in zip(examples, used, strict=True):
            if len(chosen):
                path, begin, count = self._index[str(column), _answer_key(example)]
                by_shard.setdefault(path, []).append((first, begin, count, chosen))
            first += int(chosen.sum())
        for path, parts in by_shard.items():
            with safe_open(path, "pt") as shard:
                whole = shard.get_tensor(str(column))
            for to, begin, count, chosen in parts:
                rows = whole[begin : begin + count][chosen]
                out[to : to + len(rows)] = rows

    def _enter(self, path: Path) -> None:
        """Add a shard to the index if it is complete and belongs to this model."""
        try:
            with reading(path, "the hidden states", MOST) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != path.stem:
                    return
            with safe_open(path, "pt") as shard:
                header, columns = shard.metadata() or {}, list(shard.keys())
            answers = json.loads(header["answers"])
        except (JudgeDecodingError, OSError, SafetensorError, KeyError, ValueError):
            return
        if header.get("model") != self._key:
            return
        begin = 0
        for key, count in answers:
            for column in columns:
                self._index[column, key] = path, begin, count
            begin += count


class _Shard:
    """The answers to be written next."""

    def __init__(self) -> None:
        self._answers: list[tuple[str, int]] = []
        self._columns: dict[str, list[Tensor]] = {}

    def add(self, key: str, columns: dict[str, Tensor]) -> int:
        """Add an answer and return its size in bytes."""
        self._answers.append((key, len(next(iter(columns.values())))))
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        return sum(values.numel() * values.element_size() for values in columns.values())

    def write(self, folder: Path, model: str) -> Path:
        """Write the shard; its name is the hash of its content."""
        tensors = {name: torch.cat(parts) for name, parts in self._columns.items()}
        content = save(tensors, metadata={"model": model, "answers": json.dumps(self._answers)})
        path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return path


def _answer_key(example: Example) -> str:
    return hashlib.sha256(repr((example.ids[: example.judged[-1] + 1], example.judged)).encode()).hexdigest()[:32]


def _model_key(model: PreTrainedModel) -> str:
    """Return a hash of the configuration and a sample of every weight; equal hashes mean equal outputs."""
    config = model.config.to_dict()
    for name in ("_name_or_path", "name_or_path", "transformers_version"):
        config.pop(name, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(adapters(model).encode())
    for name, weight in tensors(model):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(sample(weight, _SAMPLES).numpy().tobytes())
    return digest.hexdigest()[:32]
