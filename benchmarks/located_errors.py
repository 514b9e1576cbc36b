"""Real errors, located by people: does a judge of a real LLM find them, and does it find errors or writers?

    python benchmarks/located_errors.py MODEL --solutions example_model_solutions.jsonl --cache features

Heads are trained on the starter set (``court starter``) and scored out of fold: a token is scored by a fit that has
not seen its question. Wrong are the tokens of the located error, correct those before it and all of a right answer;
what follows an error does not count. A step is a line and scored by its worst token: the first wrong step against the
steps before it and those of right answers. The baselines are the target's log-probability and rank of the token.

In MR-GSM8K the wrong solutions are a model's and most right ones people's, so a head can learn who wrote. The control:
the AUC within the wrong answers alone, and heads that learn from these alone or with right solutions by models.
``--solutions`` is example_model_solutions.jsonl of https://github.com/openai/grade-school-math for these.
``--questions`` limits the questions of each task. ``--cache`` keeps what the model says: a stopped run goes on there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from judge_decoding import Case, ask_cases, starter_cases
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.data.leaks import same_question
from judge_decoding.data.sets import split_position
from judge_decoding.data.tokens import read_tokens
from judge_decoding.io.files import lines, write_json, write_text
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.provenance import machine
from judge_decoding.models.tokenize import end_ids
from judge_decoding.training.calibration import auc
from judge_decoding.training.features import BASELINES, FeatureCache
from judge_decoding.training.fitting import cross_validate, deal, standardise
from judge_decoding.training.labels import IGNORED, encode

L2 = (1e-3, 1e-2, 1e-1, 1.0)
SOLUTIONS = "gsm8k solutions"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens with a verdict, in one order everywhere: N of them, in S steps.

    Attributes:
        case: number of the case [N].
        label: 1 (correct) or 0 (wrong) [N].
        number: whether it is a number, bool [N].
        step: number of the step, counted through all cases [N].
        step_label: 1 (before the error, or of a right answer) or 0 (the first wrong one) [S].
    """

    case: Tensor
    label: Tensor
    number: Tensor
    step: Tensor
    step_label: Tensor


def task_of(case: Case) -> str:
    """The task of a case, by its source: "mr-gsm8k" or one of BIG-Bench Mistake's."""
    return case.source.partition(":")[0].removeprefix("bigbench-mistake/")


def chosen(cases: Sequence[Case], questions: int | None) -> list[Case]:
    """The cases of the first so many questions of each task, by a hash of the question."""
    if questions is None:
        return list(cases)
    places: dict[str, set[float]] = {}
    for case in cases:
        places.setdefault(task_of(case), set()).add(split_position(case.question))
    first = {task: set(sorted(found)[:questions]) for task, found in places.items()}
    return [case for case in cases if split_position(case.question) in first[task_of(case)]]


def right_solutions(path: Path, count: int) -> list[Case]:
    """Right solutions by models, one a question, in the form of the starter set."""
    found = []
    for _, line in lines(path, "the solutions"):
        row = json.loads(line)
        for writer, one in row.items():
            if isinstance(one, dict) and one["is_correct"]:
                text = re.sub(r"<<[^<>]*>>", "", one["solution"]).strip().replace("\nA: ", "\n#### ")
                found.append(
                    Case(
                        question=row["question"], answer=text, source=f"{SOLUTIONS}: right", writer=writer, correct=True
                    )
                )
                break
    return sorted(found, key=lambda case: split_position(case.question))[:count]


def tokens_of(cases: Sequence[Case], examples: Sequence[Any], tokenizer: Any, ends: Sequence[int]) -> Tokens:  # noqa: ANN401
    """All tokens with a verdict, and which of the lines of an answer each is in."""
    case, label, number, step = list[int](), list[int](), list[bool](), list[int]()
    step_label: list[int] = []
    for i, (one, example) in enumerate(zip(cases, examples, strict=True)):
        found = read_tokens(one, tokenizer, ends)
        spans = [*[None] * len(found.prompt), *found.spans]
        error = min(one.errors, default=None)
        wrong = None if error is None else one.answer.count("\n", 0, error[0])
        known: dict[int, int] = {}
        for place in example.judged:
            verdict, (begin, end) = example.labels[place], spans[place] or (0, 0)
            if verdict == IGNORED:
                continue
            line = one.answer.count("\n", 0, max(begin, end - 1))
            if line not in known:
                known[line] = len(step_label)
                step_label.append(int(line != wrong))
            case.append(i)
            label.append(verdict)
            number.append(example.numbers[place])
            step.append(known[line])
    return Tokens(*map(torch.tensor, (case, label, number, step, step_label)))


def figures(scores: Tensor, tokens: Tokens, part: Tensor, groups: Sequence[str], resamples: int = 0) -> dict[str, Any]:
    """AUC over tokens, number tokens and steps of a ``part`` (bool [N]), and a 95% interval over questions if asked."""
    mine, label, number, step = scores[part], tokens.label[part].bool(), tokens.number[part], tokens.step[part]
    worst = torch.full((len(tokens.step_label),), float("inf")).scatter_reduce(0, step, mine, "amin")
    used = worst < float("inf")
    row = {
        "tokens": len(mine), "wrong": int((~label).sum()), "auc": _auc(mine, label),
        "auc_numbers": _auc(mine[number], label[number]),
        "auc_steps": _auc(worst[used], tokens.step_label[used].bool()),
    }  # fmt: skip
    if resamples and row["auc"] is not None:
        generator, places = torch.Generator().manual_seed(0), dict[str, list[int]]()
        for at, i in enumerate(tokens.case[part].tolist()):
            places.setdefault(groups[i], []).append(at)
        parts = [torch.tensor(own) for own in places.values()]
        drawn = []
        for _ in range(resamples):
            at = torch.cat([parts[i] for i in torch.randint(len(parts), (len(parts),), generator=generator).tolist()])
            value = _auc(mine[at], label[at])
            drawn += [] if value is None else [value]
        row["interval"] = torch.tensor(drawn).quantile(torch.tensor([0.025, 0.975])).tolist()
    return row


def _auc(scores: Tensor, correct: Tensor) -> float | None:
    return auc(scores, correct) if 0 < int(correct.sum()) < len(correct) else None


def out_of_fold(features: Tensor, tokens: Tokens, part: Tensor, groups: Sequence[str]) -> Tensor:
    """The score of every token of ``part`` (bool [N]) by a head that has not seen its question; the others get NaN."""
    label = tokens.label[part]
    own = features[part]
    standardise(own)
    folds, _ = deal([groups[i] for i in tokens.case[part].tolist()], label, 5, 0)
    fit = cross_validate(own, label, folds, L2)
    assert fit is not None
    out = torch.full((len(part),), float("nan"))
    out[part] = fit.scores
    return out


def main() -> None:
    """Train, score, and write ``located_errors.json`` and ``located_errors.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--solutions", type=Path, help="models' right solutions, for the control of the writer")
    parser.add_argument("--questions", type=int, help="so many of each task")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--norm", choices=("before", "after"), default="after")
    parser.add_argument("--no-chat", action="store_true", help="ask in plain form, also where there is a chat template")
    parser.add_argument("--resamples", type=int, default=100, help="of the questions, for the intervals")
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    begin = time.time()
    plain = chosen(starter_cases(), args.questions)
    if args.solutions is not None:
        plain += right_solutions(args.solutions, sum(c.source.startswith("mr-gsm8k: right") for c in plain))
    tokenizer, model = load_tokenizer(args.model), load_model(args.model)
    cases, ends = ask_cases(plain, tokenizer, chat=False if args.no_chat else None), end_ids(model, tokenizer)
    examples = [encode(case, tokenizer, "span", "ignore", ends) for case in cases]
    tokens = tokens_of(cases, examples, tokenizer, ends)
    source = HiddenSource(args.layer, args.norm)
    cache = FeatureCache(args.cache, model)
    with tqdm(total=len(examples), desc="reading") as bar:
        cache.add(examples, [source, *BASELINES], progress=bar.update)

    used = [torch.tensor([e.labels[place] != IGNORED for place in e.judged], dtype=torch.bool) for e in examples]
    features = torch.empty(len(tokens.label), model.config.get_text_config().hidden_size)
    cache.fill(features, source, examples, used)
    trivial = {name: torch.empty(len(tokens.label)) for name in BASELINES}
    for name, out in trivial.items():
        cache.fill(out, name, examples, used)

    groups = [same_question(case.question) for case in plain]
    tasks = [task_of(case) for case in plain]
    bad = torch.tensor([bool(case.errors) for case in plain])[tokens.case]
    task = {name: torch.tensor([one == name for one in tasks])[tokens.case] for name in dict.fromkeys(tasks)}
    located = ~task.get(SOLUTIONS, torch.zeros_like(bad))

    def rows(trained: str, part: Tensor, tests: dict[str, Tensor]) -> list[dict[str, Any]]:
        scores = {"head": out_of_fold(features, tokens, part, groups), **trivial}
        return [
            {"trained on": trained, "tested on": tested, "detector": name}
            | figures(own, tokens, part & where, groups, args.resamples * (name == "head"))
            for tested, where in tests.items() for name, own in scores.items()
        ]  # fmt: skip

    everything = torch.ones_like(bad)
    alone = {"all its tokens": everything, "wrong answers alone": bad}
    by_task = rows("starter set", located, alone | {n: one for n, one in task.items() if n != SOLUTIONS}
                   | {f"{n}, wrong answers alone": one & bad for n, one in task.items() if n != SOLUTIONS})  # fmt: skip
    gsm8k = task["mr-gsm8k"]
    writer = rows("mr-gsm8k: wrong by a model, right mostly by people", gsm8k, alone)
    writer += rows("mr-gsm8k: wrong answers alone", gsm8k & bad, {"wrong answers alone": bad})
    if args.solutions is not None:
        writer += rows("mr-gsm8k: wrong by a model, right by other models", gsm8k & bad | task[SOLUTIONS], alone)
        writer += rows("mr-gsm8k and right solutions by models", gsm8k | task[SOLUTIONS], alone)
    told = {
        "command": " ".join(["python", Path(sys.argv[0]).as_posix(), "MODEL", *_named(sys.argv[2:])]),
        "model": Path(args.model).name, "machine": machine(), "seconds": round(time.time() - begin),
        "source": str(source), "cases": len(cases), "questions": len(set(groups)), "by task": by_task, "writer": writer,
    }  # fmt: skip
    write_json(args.out / "located_errors.json", told)
    write_text(args.out / "located_errors.md", page(told))
    print(page(told))


def _named(arguments: Sequence[str]) -> list[str]:
    """Arguments without the folders of this machine."""
    return [Path(one).name if "/" in one else one for one in arguments]


def page(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    out = [
        f"Made by `{told['command']}` on {told['machine']}, target {told['model']}, {told['source']}: {told['cases']} "
        f"answers to {told['questions']} questions. All figures are AUCs out of fold by question, with 95% intervals "
        "over questions.",
    ]
    for title, name in (("A head from the starter set, by task", "by task"), ("The control of the writer", "writer")):
        columns = ("trained on", "tested on", "detector", "tokens (wrong)", "all tokens", "numbers", "steps")
        out += ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for row in told[name]:
            low, high = row.get("interval", (None, None))
            interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            out.append(
                f"| {row['trained on']} | {row['tested on']} | {row['detector']} | {row['tokens']:,} "
                f"({row['wrong']:,}) | {_three(row['auc'])}{interval} | {_three(row['auc_numbers'])} | "
                f"{_three(row['auc_steps'])} |"
            )
    return "\n".join(out) + "\n"


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
