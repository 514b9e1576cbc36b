"""Training a draft model: loss, steps, checkpoints, and measurements on held-out answers."""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import replacing
from judge_decoding.io.resume import other_settings
from judge_decoding.training.draft_data import AnswerPart, DraftLoss, forwards
from judge_decoding.training.draft_options import DraftConfig, DraftMeasure

MEASUREMENTS = 8
"""How often the held-out answers are read while a draft is trained."""
SAVE_SECONDS = 120.0
"""Seconds after which a checkpoint is written; each measurement writes one too."""
WARM_UP = 0.05
"""The share of the steps in which the learning rate rises."""
CLIP = 1.0
"""The largest norm of a step's gradient."""


class DraftTrainer:
    """A draft in training. The same settings give the same weights, whether or not training is interrupted.

    ``draft`` is in float32, and only parameters that require gradients are trained, on the pieces of the answers in
    ``teaching``; ``held_out`` has the pieces used for measuring. Checkpoint and best weights are in ``folder``.

    Raises:
        JudgeDecodingError: the checkpoint in the folder is damaged or was made with other ``settings``.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        draft: PreTrainedModel,
        teaching: Sequence[Sequence[AnswerPart]],
        held_out: Sequence[AnswerPart],
        config: DraftConfig,
        folder: Path,
        settings: dict[str, Any],
    ) -> None:
        self._of, self._draft, self._config = DraftLoss(target, draft, config.loss), draft, config
        self._teaching, self._held_out, self._settings = teaching, held_out, settings
        self._checkpoint, self._best_file = folder / "checkpoint.safetensors", folder / "best.safetensors"
        self._weights = {name: one for name, one in draft.named_parameters() if one.requires_grad}
        self._optimiser = torch.optim.AdamW(self._weights.values(), lr=0.0, weight_decay=0.01)
        self._an_epoch = math.ceil(len(teaching) / config.batch_size)
        self.steps = config.epochs * self._an_epoch
        self._step = 0
        self._loss, self._tokens = 0.0, 0
        self._measures: list[DraftMeasure] = []
        self._resume()

    @property
    def measures(self) -> Sequence[DraftMeasure]:
        """All measurements so far; the first is of the layers as they were cut."""
        return self._measures

    @property
    def best(self) -> DraftMeasure:
        """The measurement with the best agreement; of equal ones, the one with the lowest loss."""
        return max(self._measures, key=lambda one: (one.agreement, -one.loss))

    def train(
        self,
        progress: Callable[[int, int], None] = lambda _done, _of: None,
        measured: Callable[[DraftMeasure], None] = lambda _: None,
    ) -> None:
        """Run all remaining steps; the draft ends up with its best weights."""
        often = max(math.ceil(self.steps / MEASUREMENTS), 1)
        saved = time.monotonic()
        while True:
            at_rest = self._step % often == 0 or self._step == self.steps
            if at_rest and (not self._measures or self._measures[-1].step < self._step):
                measured(self._measure())
                self._save()
                saved = time.monotonic()
            elif time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            progress(self._step, self.steps)
            if self._step == self.steps:
                break
            self._take_step()
        self._load(self._best_file)

    def finish(self) -> None:
        """Remove the checkpoint and the saved best weights, which the draft now has."""
        for path in (self._checkpoint, self._best_file):
            path.unlink(missing_ok=True)

    def _take_step(self) -> None:
        rate = self._config.highest_rate * _schedule(self._step, self.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        loss, count = self._of.gradients(self._pieces_of(self._step))
        norm = nn.utils.clip_grad_norm_(self._weights.values(), CLIP)
        if not bool(norm.isfinite()):
            raise JudgeDecodingError(
                f"The draft's gradients are not finite at step {self._step + 1}; give a lower --learning-rate."
            )
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._loss, self._tokens, self._step = self._loss + loss, self._tokens + count, self._step + 1

    def _pieces_of(self, step: int) -> list[AnswerPart]:
        """The pieces of the answers of a step; each epoch goes through all answers in its own order."""
        epoch, batch = divmod(step, self._an_epoch)
        order = list(range(len(self._teaching)))
        random.Random(f"{self._config.seed} {epoch}").shuffle(order)
        size = self._config.batch_size
        return [piece for i in order[batch * size : (batch + 1) * size] for piece in self._teaching[i]]

    @torch.no_grad()
    def _measure(self) -> DraftMeasure:
        losses, counted = 0.0, 0
        agreed: defaultdict[int, list[bool]] = defaultdict(list)
        for batch in forwards(self._held_out, self._of.size):
            loss, agrees = self._of.losses(batch, measuring=True)
            losses, counted = losses + float(loss.sum()), counted + len(loss)
            assert agrees is not None
            flags = iter(agrees.tolist())
            for piece in batch:
                agreed[piece.answer] += [next(flags) for _ in range(piece.count)]
        tokens = sum(map(len, agreed.values()))
        rounds = sum(rounds_of(flags, self._config.num_draft_tokens) for flags in agreed.values())
        found = DraftMeasure(
            self._step, self.steps, self._loss / self._tokens if self._tokens else None,
            losses / max(counted, 1), sum(map(sum, agreed.values())) / tokens, tokens / rounds,
        )  # fmt: skip
        self._measures.append(found)
        self._loss, self._tokens = 0.0, 0
        if self.best is found:
            _write(self._best_file, self._weights, {"step": found.step})
        return found

    def _save(self) -> None:
        tensors = dict(self._weights)
        for name, weight in self._weights.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in (state := self._optimiser.state.get(weight, {})):
                    tensors[f"{moment}:{name}"] = state[moment]
        state = {
            "settings": self._settings, "step": self._step, "loss": self._loss, "tokens": self._tokens,
            "measures": [asdict(one) for one in self._measures],
        }  # fmt: skip
        _write(self._checkpoint, tensors, state)

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = _state(self._checkpoint)
        try:
            begun = state["settings"]
            if begun != self._settings:
                raise other_settings(self._checkpoint, begun, self._settings)
            self._measures = [DraftMeasure(**one) for one in state["measures"]]
            self._step, self._loss, self._tokens = state["step"], state["loss"], state["tokens"]
            if not self._best_file.exists():
                raise KeyError(self._best_file)
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(self._checkpoint) from error
        self._load(self._checkpoint)
        if self._step:
            names = ("exp_avg", "exp_avg_sq")
            moments = {name: self._tensors(self._checkpoint, f"{name}:") for name in names}
            for name, weight in self._weights.items():
                found = {key: value[name] for key, value in moments.items() if name in value}
                if found:  # a weight without a gradient has none, such as those of a vision tower
                    self._optimiser.state[weight] = {"step": torch.tensor(float(self._step)), **found}

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        for name, value in self._tensors(path).items():
            self._weights[name].copy_(value)

    def _tensors(self, path: Path, prefix: str = "") -> dict[str, Tensor]:
        """Read a tensor for each weight from a file; with a ``prefix`` of their names, only those that it has."""
        device = self._draft.device
        try:
            with safe_open(path, "pt") as file:
                there = set(file.keys())
                names = [name for name in self._weights if not prefix or prefix + name in there]
                return {name: file.get_tensor(prefix + name).to(device) for name in names}
        except (SafetensorError, OSError) as error:
            raise _damaged(path) from error


def rounds_of(agreed: Sequence[bool], longest: int) -> int:
    """Return how many rounds greedy decoding of an answer needs with drafts of ``longest`` tokens.

    Drafts continue the answer itself as long as they are accepted, so the positions where draft and target agree along
    the answer determine how much of each draft is accepted. Each round adds one token of the target.
    """
    rounds = at = 0
    while at < len(agreed):
        kept = 0
        while kept < longest and at + kept < len(agreed) and agreed[at + kept]:
            kept += 1
        at, rounds = at + kept + 1, rounds + 1
    return rounds


def _schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: it rises, then falls to a tenth by a cosine."""
    rising = max(round(WARM_UP * steps), 1)
    if step < rising:
        return (step + 1) / rising
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def _write(path: Path, tensors: dict[str, Any], state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, {"state": json.dumps(state)})


def _state(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            return state
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> JudgeDecodingError:
    return JudgeDecodingError(f"{path} is no checkpoint of this training; remove it to train anew.")


def train_only(draft: PreTrainedModel, *, embeddings: bool) -> None:
    """Enable gradients for what full training changes: all parameters, or all but embeddings and output head."""
    frozen = [draft.get_input_embeddings(), draft.get_output_embeddings()]
    fixed = set() if embeddings else {id(one) for module in frozen if module is not None for one in module.parameters()}
    for parameter in draft.parameters():
        parameter.requires_grad_(id(parameter) not in fixed)
