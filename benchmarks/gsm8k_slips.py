"""A judge on a real LLM: does it find a slipped number in human solutions of grade-school problems?

    python benchmarks/gsm8k_slips.py MODEL train.jsonl --questions 600 --out benchmarks/results

``train.jsonl`` is the training part of GSM8K (https://github.com/openai/grade-school-math). To every human solution
there is a copy in which one result number is another one, and nothing else. A head is trained on four fifths of the
questions; the tokens of the others are scored by it and by the baseline, the target's log-probability of the token.
Wrong is the first token of the slipped number that differs; the tokens before it, and all of the human's, are correct;
what follows a slip does not count.
"""

from __future__ import annotations

import hashlib
import random
import re

from judge_decoding import Case

_ANNOTATION = re.compile(r"<<[^>]*>>")
_RESULT = re.compile(r"(?<==)(\s*\$?\s*)(\d+)(?![\d.,]\d|\d)")


def cases_of(question: str, solution: str, rng: random.Random) -> list[Case]:
    """The human's solution and, where it has an equation, a copy with one slipped result."""
    body, _, final = solution.partition("####")
    text = " " + _ANNOTATION.sub("", body).strip() + f"\nThe answer is {final.strip()}."
    prompt = f"Question: {question.strip()}\nAnswer:"
    right = Case(question=prompt, answer=text, source="human")
    results = list(_RESULT.finditer(text))
    if not results:
        return [right]
    start, end = rng.choice(results).span(2)
    slip = slipped(text[start:end], rng)
    same = next(i for i, (a, b) in enumerate(zip(slip, text[start:end] + " ", strict=False)) if a != b)
    wrong = text[:start] + slip + text[end:]
    return [right, Case(question=prompt, answer=wrong, errors=((start + same, start + len(slip)),), source="slip")]


def slipped(number: str, rng: random.Random) -> str:
    """Another number of the kind people write by mistake: one digit changed, or off by one, ten or a half."""
    value, others = int(number), set[int]()
    for place in range(len(number)):
        others |= {int(number[:place] + digit + number[place + 1 :]) for digit in "0123456789"}
    others |= {value + 1, value - 1, value + 10, value - 10, value * 2}
    return str(rng.choice(sorted(other for other in others if other > 0 and not number.startswith(str(other)))))


def held_out(case: Case) -> bool:
    """Whether its question is for measuring: one in five, by a hash."""
    return hashlib.sha256(case.question.encode()).digest()[0] % 5 == 0
