"""What the target's hidden states know about a token: linear heads by layer, a small network, and the learning curve.

    python recipes/smollm2_e2e/ceiling.py --target target --cases cases_swaps.jsonl --dtype bfloat16 --out ceiling

Every figure is an AUC out of fold by question: a token is scored by a fit that has not seen its question. The network
(one hidden layer) is an upper bound for what more than a linear head could find in the same states. The learning curve
trains on a share of the questions and is tested on all others of the fold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from command import running
from judge_decoding import JudgeDecodingError
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.data.cases import read_cases
from judge_decoding.data.leaks import same_question
from judge_decoding.io.files import write_json, write_text
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.markdown import table
from judge_decoding.models.provenance import machine
from judge_decoding.models.tokenize import end_ids
from judge_decoding.training.calibration import auc
from judge_decoding.training.features import LOG_PROBABILITY, RANK, FeatureCache
from judge_decoding.training.fitting import cross_validate, deal, standardise, token_weights
from judge_decoding.training.labels import IGNORED, encode

L2 = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
SHARES = (0.125, 0.25, 0.5, 1.0)
HIDDEN, SEEDS, STEPS = 64, 3, 300


def linear_scores(features: Tensor, labels: Tensor, fold_of: Tensor, train: Tensor | None = None) -> Tensor:
    """Scores out of fold [N] by linear heads on standardised features [N, H]."""
    found = cross_validate(features, labels, fold_of, L2, train=train)
    if found is None:
        raise JudgeDecodingError("A part of the questions has only correct or only wrong tokens; label more questions.")
    return found.scores


def network_scores(features: Tensor, labels: Tensor, fold_of: Tensor) -> Tensor:
    """Scores out of fold [N] by small networks: the mean logit of some seeds, weighted as heads are."""
    scores = torch.zeros(len(labels))
    for fold in range(int(fold_of.max()) + 1):
        inside = fold_of != fold
        own, target = features[inside], labels[inside]
        weights = token_weights(target, "balanced")
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Dropout(0.2), nn.Linear(features.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.5), nn.Linear(HIDDEN, 1)
            )
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
            for _ in range(STEPS):
                optimizer.zero_grad()
                logits = net(own)[:, 0]
                binary_cross_entropy_with_logits(logits, target.float(), weights, reduction="sum").backward()
                optimizer.step()
            net.eval()
            with torch.inference_mode():
                scores[~inside] += net(features[~inside])[:, 0] / SEEDS
    return scores


def main() -> None:
    """Write ``ceiling.json`` and ``ceiling.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=(-1, -4, -8, -12, -15, -20))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--out", type=Path, default=Path("ceiling"))
    args = parser.parse_args()
    with running(parser):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Read the states once, fit, and write the figures."""
    tokenizer, model = load_tokenizer(args.target), load_model(args.target, dtype=getattr(torch, args.dtype))
    cases = [case for path in args.cases for case in read_cases(path)]
    examples = [encode(case, tokenizer, "span", "ignore", end_ids(model, tokenizer)) for case in cases]
    sources = [HiddenSource(layer, "before") for layer in args.layers]
    if -1 in args.layers:
        sources.insert(0, HiddenSource(-1, "after"))
    cache = FeatureCache(args.cache, model)
    with tqdm(total=len(examples), desc="reading") as bar:
        cache.add(examples, [*sources, LOG_PROBABILITY, RANK], progress=bar.update)
    used = [torch.tensor([e.labels[i] != IGNORED for i in e.judged], dtype=torch.bool) for e in examples]
    labels = torch.tensor([e.labels[i] for e in examples for i in e.judged if e.labels[i] != IGNORED])
    groups = [same_question(case.question) for case in cases]
    questions = [group for group, mask in zip(groups, used, strict=True) for _ in range(int(mask.sum()))]
    fold_of, share = deal(questions, labels, 5, 0)

    def states(source: HiddenSource) -> Tensor:
        features = torch.empty(len(labels), model.config.get_text_config().hidden_size)
        cache.fill(features, source, examples, used)
        standardise(features)
        return features

    rows: list[tuple[str, float]] = []
    for name in (LOG_PROBABILITY, RANK):
        values = torch.empty(len(labels))
        cache.fill(values, name, examples, used)
        rows.append((f"the target's {name}", auc(values, labels.bool())))
    rows += [
        (f"linear head, {source}", auc(linear_scores(states(source), labels, fold_of), labels.bool()))
        for source in tqdm(sources, desc="layers")
    ]
    best = max(range(len(sources)), key=lambda i: rows[2 + i][1])
    chosen = states(sources[best])
    rows.append((f"network, {sources[best]}", auc(network_scores(chosen, labels, fold_of), labels.bool())))
    together = torch.cat([states(source) for source in sources], 1)
    rows.append(("network, all of these layers", auc(network_scores(together, labels, fold_of), labels.bool())))
    curve = [
        (part, auc(linear_scores(chosen, labels, fold_of, share <= part), labels.bool()))
        for part in tqdm(SHARES, desc="learning curve")
    ]
    result = {
        "command": " ".join(["python", *(Path(one).name if "/" in one else one for one in sys.argv)]),
        "machine": machine(), "cases": len(cases), "questions": len(set(questions)), "tokens": len(labels),
        "wrong": int((labels == 0).sum()), "auc": dict(rows), "curve_source": str(sources[best]), "curve": curve,
    }  # fmt: skip
    write_json(args.out / "ceiling.json", result)
    write_text(args.out / "ceiling.md", page(result, rows, curve))
    print(page(result, rows, curve))


def page(result: dict[str, object], rows: Sequence[tuple[str, float]], curve: Sequence[tuple[float, float]]) -> str:
    """The figures in Markdown."""
    parts = [
        f"Made by `{result['command']}` on {result['machine']}: {result['tokens']} labelled tokens, {result['wrong']} "
        f"of them wrong, of {result['questions']} questions. AUC out of fold by question.\n",
        table(["detector", "AUC"], [[name, f"{value:.3f}"] for name, value in rows]),
        f"\nThe learning curve of the linear head on {result['curve_source']}:\n",
        table(
            ["questions trained on", "AUC"], [[f"{part:.0%} of four fifths", f"{value:.3f}"] for part, value in curve]
        ),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
