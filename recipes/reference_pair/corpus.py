"""Documents for the two reference models, and the batches a trainer eats."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from judge_decoding.reference.grammar import Taste, render, split_tokens
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import draw_from
from judge_decoding.reference.slips import with_slips

TARGET_TASTE = Taste(story=0.40, mixed=0.20, slope=2.0)
"""Both styles, half and half, and answers that change style from sentence to sentence."""

DRAFT_TASTE = Taste(story=0.85, mixed=0.05, slope=1.5, contrary=True)
"""Nearly always story style, with the target's rarest words first."""

SLIP_COUNTS = (0.50, 0.35, 0.15)
"""Share of the target's documents with no, one and two slips."""


def document(rng: random.Random, taste: Taste, slips: bool) -> tuple[list[str], list[str]]:
    """The tokens of one prompt and of one answer (without the end token)."""
    problem = draw_from(rng, "pretrain")
    clauses = render(problem, taste, rng)
    if slips:
        answer = with_slips(clauses, problem, taste, rng.choices((0, 1, 2), SLIP_COUNTS)[0], rng)
    else:
        answer = [token for clause in clauses for token in clause.tokens]
    return split_tokens(prompt_of(problem)), answer


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, taste: Taste, slips: bool, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless ``(input_ids, labels)``, both [size, T]: one document a row, loss on the answer alone."""
    rng = random.Random(seed)
    ids = tokenizer.get_vocab()
    end = tokenizer.eos_token_id
    while True:
        rows = []
        for _ in range(size * 16):
            prompt, answer = document(rng, taste, slips)
            row = [ids[token] for token in (*prompt, *answer)]
            rows.append((row + [end], len(prompt)))
        rows.sort(key=lambda row: len(row[0]))  # rows of one length together: little padding
        chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(len(row) for row, _ in chunk)
            inputs = torch.full((size, width), tokenizer.pad_token_id)
            labels = torch.full((size, width), -100)
            for i, (row, start) in enumerate(chunk):
                inputs[i, : len(row)] = torch.tensor(row)
                labels[i, start : len(row)] = torch.tensor(row[start:])
            yield inputs, labels
