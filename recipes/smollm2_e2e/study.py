"""The table: which rule accepts most of the draft at the target's accuracy.

Every rule has the same draft length and decodes in batches, untimed; `speed.py` times. Each answer is kept, so that a
stopped run resumes.

    python recipes/smollm2_e2e/study.py --target TARGET --draft DRAFT --head linear=HEAD --data data/test.jsonl \
        --base BASE --out study
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from answers_table import Answers, rows_of, tables, texts_of
from command import load_pair, running
from judge_decoding import JudgeDecoder, JudgeHead
from judge_decoding.core.results import MATCHED, TARGET, ItemResult
from judge_decoding.decoding.answer import Generation
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation.evaluate import hash_of
from judge_decoding.evaluation.record import RecordedAnswer, ResultRecord
from judge_decoding.evaluation.sweep import Candidate, candidates
from judge_decoding.evaluation.trial import Method, compare
from judge_decoding.io.files import write_json, write_text
from judge_decoding.loading.models import load_model
from judge_decoding.models.teacher_forcing import log_probability, read_given
from judge_decoding.rules import (
    Exact,
    Judge,
    KLJudge,
    MarginRatio,
    MinProbability,
    TopK,
    Typical,
    VerificationRule,
    parse_rule,
)
from judge_decoding.tasks import Item, read_items
from judge_decoding.tasks.e2e import E2E
from judge_decoding.tasks.prompt_format import PromptFormat

DRAFT = "draft alone"
FREE: tuple[VerificationRule, ...] = (
    Exact(), TopK(2), TopK(3), TopK(4), Typical(0.3, 0.55), Typical(0.09, 0.3), Typical(0.03, 0.1),
    *(MinProbability(p) for p in (0.3, 0.1, 0.03, 0.01)),
    MarginRatio(2, 0.5), MarginRatio(3, 0.2), MarginRatio(4, 0.05),
    *(KLJudge(tau) for tau in (0.3, 1.0, 3.0)),
)  # fmt: skip
"""Rules without training, from strict to lenient; a baseline that samples is added to each that truncates."""


def wanted(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draft: PreTrainedModel,
    heads: dict[str, JudgeHead],
    rules: Sequence[VerificationRule],
    thresholds: Sequence[float],
    sampling: SamplingParams,
) -> list[Candidate]:
    """All ways of decoding; a judge's row is called by its head's name."""
    found = candidates(JudgeDecoder(target, tokenizer, draft), rules, sampling)
    found.append(Candidate(DRAFT, Method(JudgeDecoder(draft, tokenizer), sampling=sampling), DRAFT))
    for name, head in heads.items():
        decoder = JudgeDecoder(target, tokenizer, draft, head)
        for threshold in sorted({*thresholds, head.config.threshold}):
            method = Method(decoder, Judge(head, threshold), 0, sampling)
            found.append(Candidate(f"judge {name}({threshold:g})", method, f"judge {name}", f"{threshold:g}"))
    return found


def perplexities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, float]:
    """Mean negative log-probability of a text's tokens under ``model``, the text by itself behind a begin token."""
    known = sorted(set(texts))
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [[begin, *tokenizer(text, add_special_tokens=False).input_ids] for text in known]
    sums = [0.0] * len(known)
    with torch.inference_mode():
        pieces = read_given(model, ids, [range(1, len(one)) for one in ids])
        for piece in tqdm(pieces, desc="perplexity", total=len(known), leave=False):
            said = torch.tensor(ids[piece.number])[piece.positions]
            sums[piece.number] -= float(log_probability(piece.logits, said).sum())
    return {text: total / max(len(one) - 1, 1) for text, total, one in zip(known, sums, ids, strict=True)}


def quality(
    found: Sequence[Candidate],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    args: argparse.Namespace,
    record: ResultRecord,
) -> None:
    """Decode the items in each way, all at one draft length; the record keeps the answers."""
    methods = {one.name: replace(one.method, num_draft_tokens=args.num_draft_tokens) for one in found}
    methods |= {name: replace(methods[name], num_draft_tokens=0) for name in (TARGET, DRAFT) if name in methods}
    bar = tqdm(total=len(methods) * len(items), initial=len(record.done), desc="answers")

    def keep(name: str, item: Item, one: ItemResult, given: Sequence[Generation]) -> None:
        extra = {"text": prompt_format.bare(given[-1].text), "drafted": sum(g.stats.drafted for g in given)}
        record.add((name, item.key), RecordedAnswer(one, extra))
        bar.update()

    compare(methods, prompt_format, items, keep, batch_size=args.batch_size, known=record.done)
    bar.close()


def main() -> None:
    """Write ``study.json``, ``study.md`` and ``answers.jsonl``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--head", action="append", default=[], help="NAME=FOLDER; another name for another head")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", help="the unmodified model, for perplexity")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--thresholds", type=float, nargs="*", default=(0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
    parser.add_argument("--rules", nargs="+", help="rules without training, by their spelling, instead of all")
    parser.add_argument("--no-matched", action="store_true", help="leave out the baselines that sample")
    parser.add_argument("--methods", nargs="+", help="only the rows with these names, beside the target's")
    parser.add_argument("--num-draft-tokens", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--margin", type=float, default=1.5, help="percentage points of accuracy that may be lost")
    args = parser.parse_args()
    with running(parser):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Decode, and write the table."""
    dtype = getattr(torch, args.dtype)
    tokenizer, target, draft = load_pair(args.target, args.draft, dtype)
    folders = dict(one.split("=", 1) for one in args.head)
    heads = {name: JudgeHead.from_pretrained(folder, target) for name, folder in folders.items()}
    prompt_format = PromptFormat(E2E(), chat=True)
    items = read_items(prompt_format.task, args.data, limit=args.limit)
    random.Random(0).shuffle(items)  # a run that is stopped has a fair part of them
    sampling = SamplingParams(seed=0)  # greedy but for the baselines that sample
    rules = FREE if args.rules is None else [parse_rule(spelling) for spelling in args.rules]
    found = wanted(target, tokenizer, draft, heads, rules, args.thresholds, sampling)
    settings = {
        "target": args.target, "draft": args.draft, "num_draft_tokens": args.num_draft_tokens, "data": hash_of(items),
        "dtype": args.dtype,
    }  # fmt: skip
    if args.no_matched:
        found = [one for one in found if not one.name.endswith(MATCHED)]
    if args.methods:
        found = [one for one in found if one.name in {TARGET, *args.methods}]
    record = ResultRecord(args.out / "study.json", settings)
    quality(found, prompt_format, items, args, record)
    given = [record.done[one.name, item.key].extra["text"] for one in found for item in items]
    nll = perplexities(load_model(args.base), tokenizer, given) if args.base else {}
    answers: Answers = {
        one.name: {
            item.key: {"method": one.name, **asdict(known.result), **known.extra}
            | ({"nll": round(nll[known.extra["text"]], 4)} if known.extra["text"] in nll else {})
            for item in items
            for known in (record.done[one.name, item.key],)
        }
        for one in found
    }
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for known in answers.values() for one in known.values()]
    write_text(args.out / "answers.jsonl", "".join(lines))
    keys = [item.key for item in items]
    rows, texts = rows_of(answers, keys, args.num_draft_tokens, args.margin / 100), texts_of(answers, keys)
    described = [row.model_dump(exclude_none=True) for row in rows]
    write_json(args.out / "study.json", {"settings": settings, "rows": described, "answers": texts})
    shown = f"{rows[0].answers} meaning representations, all rules at one draft length\n\n{tables(rows, texts)}"
    write_text(args.out / "study.md", shown)
    print(shown)


if __name__ == "__main__":
    main()
