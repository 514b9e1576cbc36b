"""Where labels come from, on the embedded pair: a checker, equivalence or likelihood, as many questions each.

    python benchmarks/label_sources.py --questions 300 --work runs/labels --out benchmarks/results

Each source labels answers to the same questions; what it made is kept in ``--work``, so that a stopped run goes on. The
heads are trained alike, each one's threshold is the lowest that loses at most a point on calibration problems, and
they decode test problems. *Hand-style* labels come from the checker that stands in for a person: one right and one
wrong answer to a question, the first wrong token located. The likelihood's own threshold is its paper's: the 10%
quantile of the scores of tokens that equivalence finds wrong, so it needs those labels too; as that is generous here,
the 50% and the 90% quantile are tried beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from judge_decoding import Case, Exact, Judge, JudgeDecoder, SamplingParams, read_cases, train_head, write_cases
from judge_decoding.data.sets import rethreshold
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.thresholds import calibrate
from judge_decoding.evaluation.trial import Method, compare
from judge_decoding.io.files import write_json, write_text
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.labelling.labels.likelihood import LikelihoodConfig, label_by_likelihood
from judge_decoding.models.provenance import machine
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, Problem, draw_many
from judge_decoding.statistics import mcnemar, wilson
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.results import last_number

# The recipe of the embedded pair knows which of its answers are right, token by token.
sys.path.append(str(Path(__file__).parents[1] / "recipes" / "reference_pair"))

from checker import first_wrong_token
from grammar import split_tokens

BATCH = 32
NUM_DRAFT_TOKENS = 16
SHARES_REJECTED = (0.1, 0.5, 0.9)
MOST_REJECTED = 150

Labelled = tuple[list[Case], int]
"""Cases, and the target forwards they cost."""


def by_checker(pair: JudgeDecoder, small: JudgeDecoder, problems: list[Problem]) -> Labelled:
    """A right and a wrong answer to each problem that has both among five samples, as a person would be given."""
    prompts = [prompt_of(problem) for problem in problems]
    found: list[dict[bool, Case]] = [{} for _ in problems]
    forwards = 0
    own = JudgeDecoder(pair.target, pair.tokenizer)
    for decoder, temperature in ((small, 0.0), (small, 0.7), (small, 1.0), (small, 1.3), (own, 0.7)):
        answers = decoder.generate_batch(
            prompts, MAX_NEW_TOKENS, batch_size=BATCH,
            sampling=SamplingParams(temperature=temperature, seed=0), seeds=range(len(prompts)),
        )  # fmt: skip
        for problem, prompt, answer, kept in zip(problems, prompts, answers, found, strict=True):
            forwards += 0 if decoder is small else 1 + answer.stats.rounds
            ended = bool(answer.rounds) and answer.rounds[-1].stopped
            tokens = split_tokens(answer.text.removesuffix("<eos>"))
            wrong = first_wrong_token(problem, tokens, ended)
            errors: tuple[tuple[int, int], ...] = ()
            if wrong is not None:
                start = len("".join(tokens[:wrong]))
                errors = ((start, start + len(tokens[wrong]) if wrong < len(tokens) else start),)
            case = Case(question=prompt, answer="".join(tokens), errors=errors, ended=ended, source="checker")
            kept.setdefault(not errors, case)
    return [case for kept in found if len(kept) == 2 for case in kept.values()], forwards


def by_equivalence(pair: JudgeDecoder, problems: list[Problem]) -> Labelled:
    """AutoJudge's search."""
    spent = [0]
    with tqdm(total=len(problems), desc="equivalence") as bar:

        def done(_question: str, _cases: list[Case], forwards: int) -> None:
            spent[0] += forwards
            bar.update()

        cases = label_by_equivalence(
            pair, [prompt_of(problem) for problem in problems], last_number,
            max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH, done=done,
        )  # fmt: skip
    return cases, spent[0]


def by_likelihood(pair: JudgeDecoder, problems: list[Problem]) -> Labelled:
    """SelfJudge's score, of the target's own answers; all count as correct until there is a threshold."""
    prompts = [prompt_of(problem) for problem in problems]
    answers = pair.generate_batch(prompts, MAX_NEW_TOKENS, batch_size=BATCH, rule=Exact())
    cases, forwards = list[Case](), 0
    for prompt, answer in zip(prompts, tqdm(answers, desc="likelihood"), strict=True):
        some, cost = label_by_likelihood(pair, prompt, answer.token_ids, LikelihoodConfig(0.0))
        cases += some
        forwards += 1 + answer.stats.rounds + cost
    return cases, forwards


def scores_of_rejected(pair: JudgeDecoder, equivalent: list[Case]) -> list[float]:
    """The likelihood's scores of tokens that equivalence finds wrong, where it found them."""
    wrong = [case for case in equivalent if case.errors and case.token_ids][:MOST_REJECTED]
    # What the target says in the place of the wrong token, which is the last one.
    starts = [torch.tensor(case.token_ids[:-1]) for case in wrong if case.token_ids]
    made = pair.generate_batch(starts, MAX_NEW_TOKENS, batch_size=BATCH, rule=Exact())
    found = []
    for case, rest in zip(wrong, tqdm(made, desc="threshold of the likelihood"), strict=True):
        prompt = pair.encode(case.question)[0].tolist()
        answer = [*(case.token_ids or ())[len(prompt) : -1], *rest.token_ids]
        scored, _ = label_by_likelihood(pair, case.question, answer, LikelihoodConfig(0.0))
        found += [one.score for one in scored if one.token_ids == case.token_ids and one.score is not None]
    return found


def kept(name: str, work: Path, make: Callable[[], Labelled]) -> tuple[list[Case], dict[str, Any]]:
    """What a source makes, or has made before, and what it cost."""
    path, about = work / f"{name}.jsonl", work / f"{name}.json"
    if not about.exists():
        begin = time.process_time()
        cases, forwards = make()
        write_cases(path, cases)
        write_json(about, {"target_forwards": forwards, "seconds": time.process_time() - begin})
    return read_cases(path), json.loads(about.read_text(encoding="utf-8"))


def labels_of(cases: list[Case]) -> dict[str, int]:
    """How many verdicts there are: of swapped tokens, or of answers where all tokens have one."""
    return {
        "labels": sum(len(case.judged) if case.judged is not None else 1 for case in cases),
        "wrong": sum(len(case.errors) for case in cases),
    }


def main() -> None:
    """Label, train, calibrate, decode; write ``label_sources.json`` and ``label_sources.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--calibration", type=int, default=300)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun, own = args.work / "arguments.json", [args.questions, args.calibration, args.problems]
    if begun.exists() and json.loads(begun.read_text(encoding="utf-8")) != own:
        sys.exit(f"{args.work} was begun with other numbers; go on with those, or name another folder.")
    write_json(begun, own)
    pair, small = load_pair()
    problems = draw_many(3, "head", args.questions)
    sources = {"hand-style (checker)": kept("checker", args.work, lambda: by_checker(pair, small, problems))}
    sources["equivalence"] = kept("equivalence", args.work, lambda: by_equivalence(pair, problems))
    scored, cost = kept("likelihood", args.work, lambda: by_likelihood(pair, problems))
    scores = sorted(scores_of_rejected(pair, sources["equivalence"][0]))
    for share in SHARES_REJECTED:
        threshold = scores[int(len(scores) * share)]
        sources[f"likelihood above {threshold:.1f} ({share:.0%})"] = rethreshold(scored, threshold), cost
    tuning = read_items(Arithmetic(split="calibration", count=args.calibration, seed=3))
    prompt_format, test = PromptFormat(Arithmetic()), read_items(Arithmetic(count=args.problems, seed=3))
    alone = compare({"": Method(JudgeDecoder(pair.target, pair.tokenizer))}, prompt_format, test, batch_size=32)[""]
    rows: list[dict[str, Any]] = [{"source": "target alone"} | outcome(alone, alone)]
    for number, (name, (cases, cost)) in enumerate(sources.items()):
        finished = args.work / f"row-{number}.json"
        if finished.exists():
            rows.append(json.loads(finished.read_text(encoding="utf-8")))
            continue
        row: dict[str, Any] = {"source": name, "cases": len(cases), **labels_of(cases), **cost}
        head = train_head(pair.target, pair.tokenizer, cases)
        row |= {"auc": head.config.calibration["auc"]}
        decoder = JudgeDecoder(pair.target, pair.tokenizer, pair.draft, head)
        try:
            calibrate(
                decoder, head, prompt_format, tuning, 1.0, num_draft_tokens=NUM_DRAFT_TOKENS, batch_size=BATCH,
                part=args.work / f"calibration-{number}.part",
            )  # fmt: skip
        except JudgeDecodingError as error:
            row["failed"] = str(error)
        else:
            method = Method(decoder, Judge(head, head.config.threshold), NUM_DRAFT_TOKENS)
            judged = compare({"": method}, prompt_format, test, batch_size=32)[""]
            row |= {"threshold": head.config.threshold} | outcome(judged, alone)
        write_json(finished, row)
        rows.append(row)
        print(row, flush=True)
    told = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "rows": rows}
    write_json(args.out / "label_sources.json", told)
    write_text(args.out / "label_sources.md", table(told, args.questions, args.problems))
    print(table(told, args.questions, args.problems))


def outcome(one: Any, target: Any) -> dict[str, Any]:  # noqa: ANN401  (outcomes of a trial)
    """What a way of decoding came to."""
    low, high = wilson(sum(one.right), len(one.right))
    return {
        "accuracy": one.accuracy, "accuracy_low": low, "accuracy_high": high,
        "mcnemar_p": mcnemar(one.right, target.right), "accepted_per_round": one.stats.accepted_per_round,
    }  # fmt: skip


def table(told: dict[str, Any], questions: int, problems: int) -> str:
    """The results as Markdown."""
    lines = [
        f"Made by `{told['command']}` on {told['machine']}: {questions} questions to label, {problems} test problems, "
        f"draft length {NUM_DRAFT_TOKENS}.",
        "",
        "| labels | cases | labels, wrong | target forwards | processor seconds | threshold | accuracy [95%] | "
        "McNemar's p | accepted draft tokens per round |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        cost = [""] * 4 if "cases" not in row else [
            str(row["cases"]), f"{row['labels']:,}, {row['wrong']:,}", f"{row['target_forwards']:,}",
            f"{row['seconds']:.0f}",
        ]  # fmt: skip
        if "accuracy" in row:
            figures = [
                f"{row['threshold']:g}" if "threshold" in row else "",
                f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]",
                f"{row['mcnemar_p']:.2g}" if "cases" in row else "",
                f"{row['accepted_per_round']:.2f}" if "cases" in row else "",
            ]
        else:
            figures = ["none", row["failed"], "", ""]
        lines.append(f"| {row['source']} | {' | '.join([*cost, *figures])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
