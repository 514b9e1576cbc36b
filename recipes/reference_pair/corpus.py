"""Documents for the two reference models, and the batches a trainer eats."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from grammar import State, Step, Taste, clause_templates, fill, render, split_tokens
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import HOLDERS, ITEMS, LARGEST, draw_from
from slips import TAKE_BACK, compute, with_slips, wrong_number

TARGET_TASTE = Taste(story=0.40, mixed=0.20, slope=1.3)
"""Both styles, half and half, and answers that change style from sentence to sentence."""

DRAFT_TASTE = Taste(story=0.85, mixed=0.05, slope=1.5, contrary=True)
"""Nearly always story style, with the target's rarest words first."""

SLIP_COUNTS = (0.50, 0.35, 0.15)
"""Share of the target's documents with no, one and two slips."""


PRETRAIN_STEPS = (1, 2, 2, 3)
"""One-step problems too, which are not asked later: from them it is learned what a verb does to a number."""

ARITHMETIC = re.compile(r" ([0-9]+|[+*-]|plus|minus|times)")
ARITHMETIC_WEIGHT = 4.0
"""Loss weight of numbers and operations. Most tokens are a free choice of words, whose noise would drown them."""

Document = list[tuple[str, bool]]
"""Tokens, and whether the model is trained to predict each."""


def document(rng: random.Random, taste: Taste, slips: bool) -> Document:
    """One problem and one answer (without the end token); only the answer is trained."""
    problem = draw_from(rng, "pretrain", steps=PRETRAIN_STEPS)
    clauses = render(problem, taste, rng)
    if slips:
        answer = with_slips(clauses, problem, taste, rng.choices((0, 1, 2), SLIP_COUNTS)[0], rng)
    else:
        answer = [token for clause in clauses for token in clause.tokens]
    return [(token, False) for token in split_tokens(prompt_of(problem))] + [(token, True) for token in answer]


def practice(rng: random.Random, taste: Taste, slips: bool) -> Document:
    """A sheet of computations without a problem, in both styles' sentences: far more arithmetic a token.

    The operands are random, so they are not trained. With ``slips`` one result in six is wrong and taken back.
    """
    tokens: Document = [("A", False), (":", False)]
    item, holder = rng.choice(ITEMS), rng.choice(HOLDERS)
    for _ in range(8):
        step = _computation(rng)
        rows = clause_templates(item, holder, step.op, rng.choice(("equation", "story")))
        slipped = slips and rng.random() < 1 / 6
        for slot in rows[taste.choose(rng, len(rows))]:
            chosen = slot[taste.choose(rng, len(slot))]
            if slipped and chosen == (" {z}",):
                tokens += [(f" {wrong_number(step.z, None, step, rng)}", True), *((t, True) for t in TAKE_BACK)]
                slipped = False
            operand = chosen in ((" {x}",), (" {y}",))
            tokens += [(token, not operand) for token in fill(chosen, step)]
    return tokens


def _computation(rng: random.Random) -> Step:
    """A random sum, difference or product that stays within the numbers of the problems."""
    while True:
        op = rng.choices("+-*", (4, 5, 1))[0]
        x, y = (
            (rng.randint(2, 6), rng.randint(2, 6)) if op == "*" else (rng.randint(0, LARGEST), rng.randint(0, LARGEST))
        )
        z = compute(op, x, y)
        if 0 <= z <= LARGEST:
            return Step(op, x, y, z, State(frozenset(), frozenset()))


def batches(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    taste: Taste,
    slips: bool,
    size: int,
    practice_share: float,
    draft_share: float = 0.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless ``(input_ids, labels)``, [size, T]: a document a row, ``draft_share`` of them to the draft's taste."""
    rng = random.Random(seed)
    ids = tokenizer.get_vocab()
    end = tokenizer.eos_token_id
    while True:
        rows = []
        for _ in range(size * 16):
            write = practice if rng.random() < practice_share else document
            other = draft_share and rng.random() < draft_share
            rows.append(write(rng, DRAFT_TASTE if other else taste, slips))
        rows.sort(key=len)  # rows of one length together: little padding
        chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(map(len, chunk)) + 1
            inputs = torch.full((size, width), tokenizer.pad_token_id)
            labels = torch.full((size, width), -100)
            for i, row in enumerate(chunk):
                known = torch.tensor([ids[token] for token, _ in row] + [end])
                trained = torch.tensor([flag for _, flag in row] + [True])
                inputs[i, : len(known)] = known
                labels[i, : len(known)] = known.where(trained, torch.tensor(-100))
            yield inputs, labels
