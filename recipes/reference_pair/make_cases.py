"""Make TokenCourt cases for the reference pair: a right and a wrong answer to each of N questions.

The answers are the models' own: the draft's, greedy and sampled, and the target's for every second right one.
The package's checker locates the first wrong token. The questions are of the split named, so that no head is
trained on a calibration or test problem.

    python recipes/reference_pair/make_cases.py --target TARGET --draft DRAFT --pairs 500 --split head --out FILE
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from transformers import set_seed

from checker import first_wrong_token
from gate import answers
from grammar import split_tokens
from judge_decoding.data.cases import Case, write_cases
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, Problem, draw_many


def label(problem: Problem, text: str, writer: str) -> Case:
    """The case of one answer, its first wrong token located by the checker."""
    tokens = split_tokens(text)
    ended = len(tokens) < MAX_NEW_TOKENS
    wrong = first_wrong_token(problem, tokens, ended)
    errors: tuple[tuple[int, int], ...] = ()
    if wrong is not None:
        start = len("".join(tokens[:wrong]))
        errors = ((start, start + len(tokens[wrong]) if wrong < len(tokens) else start),)
    return Case(question=prompt_of(problem), answer=text, errors=errors, ended=ended, source="checker", writer=writer)


def main() -> None:
    """Write the file and tell what is in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--split", choices=("head", "calibration"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    set_seed(args.seed)
    tokenizer = load_tokenizer(args.target)
    models = {name: load_model(getattr(args, name)) for name in ("draft", "target")}
    problems = draw_many(args.seed, args.split, int(args.pairs * 1.3) + 20)
    prompts = [prompt_of(p) for p in problems]
    with torch.inference_mode():
        written = [("draft, greedy", answers(models["draft"], tokenizer, prompts))]
        for temperature in (0.7, 1.0, 1.3):
            texts = answers(models["draft"], tokenizer, prompts, do_sample=True, temperature=temperature, top_k=0)
            written.append((f"draft, temperature {temperature}", texts))
        sampled = answers(models["target"], tokenizer, prompts, do_sample=True, temperature=0.7, top_k=0)

    cases: list[Case] = []
    for i, problem in enumerate(problems):
        labelled = [label(problem, texts[i], writer) for writer, texts in written]
        own = label(problem, sampled[i], "target, temperature 0.7")
        order = [own, *labelled] if i % 2 else [*labelled, own]
        right = next((case for case in order if not case.errors), None)
        wrong = next((case for case in labelled if case.errors), None)
        if right is not None and wrong is not None and len(cases) < 2 * args.pairs:
            cases += [right, wrong]
    write_cases(args.out, cases)
    print(f"{len(cases)} cases -> {args.out}", dict(Counter((c.writer, bool(c.errors)) for c in cases)))


if __name__ == "__main__":
    main()
