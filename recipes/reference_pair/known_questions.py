"""Fit what a head's training questions look like on problems of its split of every length, not only on the cases.

The cases are pairs of a right and a wrong answer, which leaves out most of the shortest problems. Those are no less
familiar. Problems of one step are drawn, too: the head was not trained on any, but it was
measured on them (docs/familiarity.md). Weights, bias and threshold do not change.

    python recipes/reference_pair/known_questions.py HEAD --target TARGET --out HEAD
"""

from __future__ import annotations

import random

import torch

from judge_decoding import save_head
from judge_decoding.judge.familiarity import Familiarity
from judge_decoding.loading.models import load_tokenizer
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.models.tokenize import prompt_ids
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import Problem, draw_from
from probe import head_and_target

KINDS = {(1, False): 500, (1, True): 200, (2, False): 300, (2, True): 300, (3, False): 300, (3, True): 400}
"""How many problems of each number of steps, without and with a product: some kinds are rarely drawn."""


def problems_of_all_kinds() -> list[Problem]:
    """Problems of the head's split, as many of each kind as `KINDS` says."""
    rng, missing, found = random.Random(0), dict(KINDS), list[Problem]()
    while any(missing.values()):
        problem = draw_from(rng, "head", "collection", tuple({steps for steps, _ in KINDS}))
        kind = len(problem.terms) - 1, any(term.derivation for term in problem.terms)
        if missing[kind]:
            missing[kind] -= 1
            found.append(problem)
    return found


def main() -> None:
    """Write the head with statistics of new questions, and print how many there are."""
    args, head, target = head_and_target()
    tokenizer = load_tokenizer(args.target)
    ids = [prompt_ids(prompt_of(problem), tokenizer) for problem in problems_of_all_kinds()]
    states = hidden_states(target, ids, head.config.norm)
    head.set_familiarity(Familiarity.fit(torch.stack([state[-1] for state in states])))
    save_head(head, args.out)
    print(f"{head.config.familiarity} -> {args.out}")


if __name__ == "__main__":
    main()
