"""Which head: norm, labels after the error and number of cases, compared, then the threshold chosen.

First each head's AUC on labelled calibration answers, beside the trivial detectors (the target's log-probability
and rank of the token). Then what counts, decoding calibration problems. Test problems are not touched.

    python recipes/reference_pair/study.py --target TARGET --draft DRAFT --cases SMALL LARGE --held HELD --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import JudgeDecoder, JudgeHead, TrainingConfig, read_cases, train_head
from judge_decoding.evaluation.trial import Method, compare
from judge_decoding.io.files import write_json
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.rules import Judge
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.training.calibration import auc
from judge_decoding.training.labels import encode


def detectors(
    model: torch.nn.Module, tokenizer: object, held: Path, heads: dict[str, JudgeHead]
) -> dict[str, dict[str, float]]:
    """AUC of each head, of the log-probability and of the rank, over all tokens and over numbers alone.

    Every token up to the first error counts; what follows an error is neither right nor wrong by itself.
    """
    examples = [encode(case, tokenizer, "span", "ignore") for case in read_cases(held)]
    labels, numbers, logp, rank = [], [], [], []
    with torch.inference_mode():
        for example in tqdm(examples, desc="detectors", leave=False):
            ids, label = torch.tensor([example.ids]), torch.tensor(example.labels[1:])
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            own = scores.gather(-1, ids[0, 1:, None])
            used = label >= 0
            labels.append(label[used])
            logp.append(own[used, 0])
            rank.append(-(scores > own).sum(-1)[used])
            texts = tokenizer.convert_ids_to_tokens(list(example.ids[1:]))
            numbers.append(torch.tensor([t.strip().isdigit() for t in texts])[used])
    found = {"log-probability": torch.cat(logp), "rank": torch.cat(rank)}
    for norm in ("before", "after"):
        chosen = {name: head for name, head in heads.items() if head.config.norm == norm}
        states = hidden_states(model, [e.ids for e in examples], norm) if chosen else []
        for name, head in chosen.items():
            parts = [
                head.probability(s)[1:][torch.tensor(e.labels[1:]) >= 0] for s, e in zip(states, examples, strict=True)
            ]
            found[name] = torch.cat(parts)
    y, n = torch.cat(labels).bool(), torch.cat(numbers)
    return {
        name: {"auc_all": auc(s, y), "auc_numbers": auc(s[n], y[n]), "tokens": len(y), "wrong": int((~y).sum())}
        for name, s in found.items()
    }


def main() -> None:
    """Write ``study.json`` and every head."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--norms", nargs="+", default=("before", "after"))
    parser.add_argument("--after-error", nargs="+", default=("correct", "ignore", "wrong"))
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--num-draft-tokens", type=int, default=16)
    parser.add_argument("--thresholds", type=float, nargs="*", default=(0.3, 0.6, 0.9, 0.97))
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, target, draft = load_tokenizer(args.target), load_model(args.target), load_model(args.draft)
    heads: dict[str, JudgeHead] = {}
    for path in args.cases:
        cases = read_cases(path)
        for norm in args.norms:
            for after in args.after_error:
                reading = {"labels": "from_error"} if after == "wrong" else {"labels": "span", "after_error": after}
                config = TrainingConfig(norm=norm, **reading)
                head = train_head(target, tokenizer, cases, config, cache=args.out / "features")
                heads[f"{len(cases)} cases, {norm} the norm, after the error {after}"] = head
                head.save_pretrained(args.out / f"{len(cases)}-{norm}-{after}")
    study: dict[str, object] = {"detectors": detectors(target, tokenizer, args.held, heads)}
    print(json.dumps(study, indent=1), flush=True)

    task = Arithmetic(split="calibration", count=args.problems)
    prompt_format, items = PromptFormat(task), read_items(task)
    rows = []
    alone = compare({"": Method(JudgeDecoder(target, tokenizer))}, prompt_format, items, batch_size=32)[""]
    rows.append({"head": "target alone", "accuracy": alone.accuracy})
    print(rows[-1], flush=True)
    for name, head in tqdm(heads.items(), desc="decoding"):
        decoder = JudgeDecoder(target, tokenizer, draft, head)
        for threshold in args.thresholds:
            method = Method(decoder, Judge(head, threshold), args.num_draft_tokens)
            outcome = compare({"": method}, prompt_format, items, batch_size=32)[""]
            rows.append(
                {
                    "head": name,
                    "threshold": threshold,
                    "accuracy": outcome.accuracy,
                    "accepted_per_round": outcome.stats.accepted_per_round,
                }
            )
            print(rows[-1], flush=True)
        study["decoding"] = {"problems": args.problems, "num_draft_tokens": args.num_draft_tokens, "rows": rows}
        write_json(args.out / "study.json", study)


if __name__ == "__main__":
    main()
