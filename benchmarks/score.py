"""Texts as drafts, shown twice: human solutions against a real LLM, and the embedded pair's other style.

    python benchmarks/score.py gsm8k train.jsonl --target SmolLM2-135M-Instruct --out benchmarks/results
    python benchmarks/score.py reference --out benchmarks/results

``train.jsonl`` is the training part of GSM8K (https://github.com/openai/grade-school-math). Of its solutions the
calculator's annotations (``<<48/2=24>>``) and the last line (``#### 72``) are left out, so that what remains is what a
person wrote. The texts of the embedded pair are those answers of its draft that the checker finds right; for the same
problems the table also has what decoding accepts with that draft.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from judge_decoding import Case, Exact, JudgeDecoder, Stats, VerificationRule, parse_rule
from judge_decoding.evaluation.score import ScoreConfig, score
from judge_decoding.evaluation.texts import PromptTemplate, TokenizedAnswer, tokenized
from judge_decoding.io.files import write_json, write_text
from judge_decoding.models.provenance import machine
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many

# The recipe of the embedded pair knows which of its answers are right, token by token.
sys.path.append(str(Path(__file__).parents[1] / "recipes" / "reference_pair"))

from checker import first_wrong_token
from grammar import split_tokens

LIKELIHOOD = (
    "exact", "top_k(k=2)", "top_k(k=4)", "top_k(k=8)", "min_probability(p=0.3)", "min_probability(p=0.1)",
    "min_probability(p=0.03)", "margin_ratio", "relaxed", "typical", "lenience(factor=0.3)", "running_surprise",
    "entropy_gate",
)  # fmt: skip
REFERENCE = ("exact", "judge", "top_k(k=2)", "top_k(k=4)", "min_probability(p=0.1)", "typical")
WHOLE = 1000
"""A draft length beyond any answer here."""
LENGTHS = (4, 16, WHOLE)
FORMS = {"chat": PromptTemplate(chat=True), "plain": PromptTemplate("Question: {question}\nAnswer: {answer}")}


def human(solution: str) -> str:
    """What a person wrote of a GSM8K solution."""
    return re.sub(r"<<[^>]*>>", "", solution.partition("####")[0]).strip()


def gsm8k(file: Path, target: str, count: int) -> dict[str, Any]:
    """The figures of the first ``count`` human solutions, after a chat's prompt and a plain one."""
    decoder = JudgeDecoder.from_pretrained(target)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:count]]
    cases = [Case(question=row["question"], answer=human(row["answer"])) for row in rows]
    return {name: measured(decoder, cases, form, LIKELIHOOD, LENGTHS) for name, form in FORMS.items()}


def reference(count: int) -> dict[str, Any]:
    """The figures of the draft's right answers to ``count`` test problems, and of decoding the same problems."""
    pair, draft = load_pair()
    problems = draw_many(3, "test", count)
    answers = draft.generate_batch([prompt_of(each) for each in problems], MAX_NEW_TOKENS, batch_size=32)
    ended = [answer.token_ids[-1] in draft.end_ids for answer in answers]
    right = [
        (problem, answer.text)
        for problem, answer, whole in zip(problems, answers, ended, strict=True)
        if first_wrong_token(problem, split_tokens(answer.text), whole) is None
    ]
    cases = [Case(question=prompt_of(problem), answer=text) for problem, text in right]
    found = measured(pair, cases, PromptTemplate(), REFERENCE, LENGTHS)

    def decoded(rule: VerificationRule, length: int) -> float:
        stats = Stats()
        for answer in pair.generate_batch(
            [case.question for case in cases], MAX_NEW_TOKENS, batch_size=32, rule=rule, num_draft_tokens=length
        ):
            stats.merge(answer.stats)
        return stats.accepted_per_round

    for row in tqdm(found["rules"], desc="decoding"):
        if row["num_draft_tokens"] != WHOLE:
            rule = parse_rule(row["rule"], pair.judge)
            row["accepted_per_round_in_decoding"] = decoded(rule, row["num_draft_tokens"])
    return {"the draft's right answers": found}


def measured(
    decoder: JudgeDecoder,
    cases: Sequence[Case],
    form: PromptTemplate,
    spellings: Sequence[str],
    lengths: tuple[int, ...],
) -> dict[str, Any]:
    """All rules at all lengths on the texts of ``cases``."""
    size = decoder.target.get_input_embeddings().weight.shape[0]
    texts: list[TokenizedAnswer] = [tokenized(case, decoder.tokenizer, form, size=size, context=None) for case in cases]
    rules = [parse_rule(spelling, decoder.judge) for spelling in spellings]
    with tqdm(total=len(texts), desc=str(form)) as bar:
        found = score(decoder, texts, rules, ScoreConfig(lengths, shown=0), progress=bar.update)

    def spell(token: int) -> str:
        return str(decoder.tokenizer.decode([token]))

    return {
        "answers": len(texts), "tokens": sum(len(text.ids) for text in texts), "prompt": str(form),
        "rules": [_shortened(each.to_dict(spell)) for each in found],
    }  # fmt: skip


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """A rule's figures without the longest lists, which the table does not need."""
    if row["num_draft_tokens"] != 16:
        del row["most_rejected"], row["acceptance_by_position"]
    return row


def table(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Made by `{told['command']}` on {told['machine']}. Accepted draft tokens per round [95%]; tokens per target "
        "forward; share of the tokens the rule decided about that it rejected. Temperature 0.",
    ]
    for name, part in told["texts"].items():
        decoded = any("accepted_per_round_in_decoding" in row for row in part["rules"])
        titles = ["rule", "draft length", "accepted per round", *(["in decoding"] if decoded else []),
                  "tokens per forward", "rejected"]  # fmt: skip
        lines += ["", f"## {name}: {part['answers']} answers, {part['tokens']} tokens; prompt {part['prompt']}", "",
                  f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]  # fmt: skip
        for row in part["rules"]:
            length = row["num_draft_tokens"]
            low, high = row["accepted_per_round_interval"]
            inside = row.get("accepted_per_round_in_decoding")
            cells = [
                row["rule"].replace("|", "\\|"), "the whole rest" if length == WHOLE else str(length),
                f"{row['accepted_per_round']:.2f} [{low:.2f}, {high:.2f}]",
                *([f"{inside:.2f}" if inside is not None else "-"] if decoded else []),
                f"{row['tokens_per_forward']:.2f}", f"{row['rejected_share']:.1%}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        strict = next(row for row in part["rules"] if row["rule"] == str(Exact()) and row["num_draft_tokens"] == 16)
        worst = (f"`{each['token']!r}` {each['rejected']} of {each['decided']}" for each in strict["most_rejected"])
        lines += ["", f"Rejected most often by exact at draft length 16: {', '.join(worst)}.", "",
                  "Rounds of exact at draft length 16 by accepted draft tokens: "
                  + ", ".join(f"{k}: {v}" for k, v in strict["accepted_lengths"].items()) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write ``score_gsm8k`` or ``score_reference``, as JSON and Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=("gsm8k", "reference"))
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--target")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.which == "gsm8k":
        if args.file is None or args.target is None:
            parser.error("gsm8k needs the file and a target")
        texts = gsm8k(args.file, args.target, args.count)
    else:
        texts = reference(args.count)
    told = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "texts": texts}
    write_json(args.out / f"score_{args.which}.json", told)
    write_text(args.out / f"score_{args.which}.md", table(told))
    print(table(told))


if __name__ == "__main__":
    main()
