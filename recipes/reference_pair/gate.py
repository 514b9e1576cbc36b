"""The gate before any head: is the model right by itself, and when it must go on in either style?

python recipes/reference_pair/gate.py MODEL --problems 1000 --split test
"""

from __future__ import annotations

import argparse
import json
import random

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from checker import first_wrong_token
from corpus import DRAFT_TASTE
from grammar import Taste, render, split_tokens
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import Problem, draw_many
from judge_decoding.tasks.checkers import number

FORCED = {
    "": None,
    "equation": Taste(story=0, mixed=0, slope=2.0),
    "story": Taste(story=1, mixed=0, slope=2.0),
    "draft's words": DRAFT_TASTE,
}


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], batch: int = 100, **kwargs: object
) -> list[str]:
    """Greedy (or, by ``kwargs``, sampled) continuations of ``prompts``, without the end token."""
    texts: list[str] = []
    for begin in tqdm(range(0, len(prompts), batch), leave=False, desc="answers"):
        inputs = tokenizer(prompts[begin : begin + batch], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        out = model.generate(**inputs, **{"max_new_tokens": 140, "do_sample": False, **kwargs})
        texts += tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def forced_prefix(problem: Problem, taste: Taste | None, rng: random.Random) -> str:
    """The opening and the first step of a right answer in ``taste``; nothing without one."""
    if taste is None:
        return ""
    return "".join("".join(clause.tokens) for clause in render(problem, taste, rng)[:2])


def main() -> None:
    """Print the gate's figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--split", default="test", choices=("calibration", "test", "head"))
    parser.add_argument("--family", default="collection", choices=("collection", "comparison"))
    args = parser.parse_args()
    model, tokenizer = (
        load_model(args.model),
        load_tokenizer(args.model),
    )
    problems = draw_many(0, args.split, args.problems, args.family)
    figures: dict[str, object] = {
        "model": args.model,
        "split": args.split,
        "family": args.family,
        "problems": len(problems),
    }
    with torch.inference_mode():
        for style, taste in FORCED.items():
            rng = random.Random(0)
            starts = [forced_prefix(p, taste, rng) for p in problems]
            ends = answers(model, tokenizer, [prompt_of(p) + s for p, s in zip(problems, starts, strict=True)])
            texts = [s + e for s, e in zip(starts, ends, strict=True)]
            tokens = [split_tokens(text) for text in texts]
            right = [number("", text, str(p.answer)) is True for p, text in zip(problems, texts, strict=True)]
            whole = [first_wrong_token(p, t) is None for p, t in zip(problems, tokens, strict=True)]
            figures[f"forced: {style}" if style else "free"] = {
                "accuracy": sum(right) / len(right),
                "every_step_right": sum(whole) / len(whole),
                "tokens_per_answer": sum(map(len, tokens)) / len(tokens),
            }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
