"""Which state and which distance tell prompts unlike a judge's training questions, and what the warning is worth.

    python benchmarks/familiarity.py --model SmolLM2-135M-Instruct --gsm8k train.jsonl --spec-bench question.jsonl

Two situations. The embedded pair: questions of the family its judge was trained on against the family it never saw, and
against its own family with other numbers of steps. A real model, if one is given: questions of GSM8K
(github.com/openai/grade-school-math) against the categories of Spec-Bench (github.com/hemingkx/Spec-Bench), whose
math_reasoning is GSM8K's own test set. Candidates are fitted on the training questions; the false alarms are those of
further questions of the same kind. Then the embedded judge decodes: where does its accuracy fall, and was it said?
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from judge_decoding import JudgeDecoder
from judge_decoding.core.hidden import Norm
from judge_decoding.io.files import write_json, write_text
from judge_decoding.judge.familiarity import Familiarity
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.provenance import machine
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.models.tokenize import Prompt
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, Problem, ProblemFamily, draw_from, draw_many
from judge_decoding.statistics import mcnemar, wilson
from judge_decoding.tasks.checkers import number
from judge_decoding.training.calibration import auc

Distance = Callable[[Tensor], Tensor]
"""From states [N, H] to distances [N]; above 1 is unlike 95% of the questions it was fitted on."""

STATES = ("prompt's mean", "prompt's last token", "draft's mean")
DRAFTED = 24
PROMPT_TOKENS = 160
FOLDS = 10


def diagonal(states: Tensor) -> Distance:
    """Mahalanobis, each coordinate for itself."""
    mean, variance = states.mean(0), states.var(0)
    return lambda x: ((x - mean).square() / (variance + 1e-3 * variance.mean())).mean(1).sqrt()


def shrunk(states: Tensor) -> Distance:
    """Mahalanobis with the whole covariance, shrunk as Chen et al. 2010 have it (OAS, arXiv 0907.4698)."""
    count, size = states.shape
    mean = states.mean(0)
    covariance = (states - mean).T @ (states - mean) / count
    mu, alpha = covariance.trace() / size, covariance.square().mean()
    rho = min(float((alpha + mu**2) / ((count + 1) * (alpha - mu**2 / size))), 1.0)
    inverse = torch.linalg.inv((1 - rho) * covariance.double() + rho * mu * torch.eye(size)).float()
    return lambda x: (((x - mean) @ inverse) * (x - mean)).mean(1).clamp(min=0).sqrt()


def cosine(centroids: int) -> Callable[[Tensor], Distance]:
    """Cosine distance to the nearest of some centroids (spherical k-means)."""

    def fit(states: Tensor) -> Distance:
        unit = normalize(states)
        centres = unit[torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))[:centroids]]
        for _ in range(20):
            nearest = (unit @ centres.T).argmax(1)
            own = [unit[nearest == i] for i in range(len(centres))]
            centres = normalize(torch.stack([o.mean(0) if len(o) else centres[i] for i, o in enumerate(own)]))
        return lambda x: 1 - (normalize(x) @ centres.T).amax(1)

    return fit


def crossed(fit: Callable[[Tensor], Distance]) -> Callable[[Tensor], Distance]:
    """The same in units of the 95% quantile of questions that were held out in turn."""

    def scaled(states: Tensor) -> Distance:
        fold = torch.arange(len(states)) % FOLDS
        held = torch.cat([fit(states[fold != out])(states[fold == out]) for out in range(FOLDS)])
        limit, distance = held.quantile(0.95), fit(states)
        return lambda x: distance(x) / limit

    return scaled


def low_rank(states: Tensor) -> Distance:
    """The package's own."""
    fitted = Familiarity.fit(states)
    assert fitted is not None
    return fitted


CANDIDATES: dict[str, Callable[[Tensor], Distance]] = {
    "diagonal Mahalanobis": crossed(diagonal),
    "low-rank Mahalanobis": low_rank,
    "shrunk Mahalanobis": crossed(shrunk),
    "cosine, 1 centroid": crossed(cosine(1)),
    "cosine, 8 centroids": crossed(cosine(8)),
}


def points(decoder: JudgeDecoder, writer: JudgeDecoder, prompts: Sequence[Prompt], norm: Norm) -> dict[str, Tensor]:
    """Each of `STATES` of each prompt [N, H]; the draft is the first tokens that ``writer`` says."""
    ids = [decoder.encode(prompt)[0].tolist() for prompt in prompts]
    drafts = writer.generate_batch(prompts, DRAFTED, batch_size=16)
    sequences = [[*own, *draft.token_ids] for own, draft in zip(ids, drafts, strict=True)]
    found: dict[str, list[Tensor]] = {name: [] for name in STATES}
    for own, state in zip(ids, hidden_states(decoder.target, sequences, norm), strict=True):
        parts = (state[: len(own)].mean(0), state[len(own) - 1], state[len(own) :].mean(0))
        for name, part in zip(STATES, parts, strict=True):
            found[name].append(part)
    return {name: torch.stack(parts) for name, parts in found.items()}


def rounded(decoder: JudgeDecoder, prompts: Sequence[Prompt], norm: Norm, train: Tensor) -> float:
    """Share of prompts above 1, read in bfloat16 (the model stays so), of statistics ``train`` [N, H] in float32."""
    decoder.target.to(torch.bfloat16)
    ids = [decoder.encode(prompt)[0].tolist() for prompt in prompts]
    states = torch.stack([state[-1] for state in hidden_states(decoder.target, ids, norm)])
    return float((low_rank(train)(states) > 1).float().mean())


def compared(
    train: Mapping[str, Tensor], like: str, sets: Mapping[str, Mapping[str, Tensor]]
) -> list[dict[str, object]]:
    """Each candidate: share of each set above 1, and how well it tells the set from ``like``, held-out ones."""
    rows = []
    for state in STATES:
        for name, fit in CANDIDATES.items():
            distance = fit(train[state])
            found = {key: distance(value[state]) for key, value in sets.items()}
            held = found[like]
            cells = {
                key: {
                    "above_1": float((value > 1).float().mean()),
                    "auc": auc(torch.cat((value, held)), torch.arange(len(value) + len(held)) < len(value)),
                }
                for key, value in found.items()
            }
            rows.append({"state": state, "distance": name, "sets": cells})
    return rows


def problems(steps: int, count: int) -> list[Problem]:
    """Differently worded test problems of the family the judge knows, with another number of steps."""
    rng, found = random.Random(steps), {}
    while len(found) < count:
        problem = draw_from(rng, "test", "collection", (steps,))
        found.setdefault(problem.question, problem)
    return list(found.values())


def test_sets(count: int, unseen: int) -> dict[str, list[Problem]]:
    """What the embedded judge is put before."""
    family: ProblemFamily = "comparison"
    return {
        "collections (trained)": draw_many(0, "test", count),
        "comparisons": draw_many(0, "test", unseen, family),
        **{f"{n} step{'s'[: n > 1]}": problems(n, count) for n in (1, 4, 5)},
    }


def decoded(sets: Mapping[str, Sequence[Problem]]) -> list[dict[str, object]]:
    """The judge's accuracy beside the target's, and which requests were said to be unlike its training."""
    pair, _ = load_pair()
    target = JudgeDecoder(pair.target, pair.tokenizer)
    rows = []
    for name, chosen in tqdm(sets.items(), desc="decoding"):
        prompts = [prompt_of(problem) for problem in chosen]
        judged = pair.generate_batch(prompts, MAX_NEW_TOKENS, batch_size=32)
        plain = target.generate_batch(prompts, MAX_NEW_TOKENS, batch_size=32)
        right = [number("", a.text, str(p.answer)) is True for a, p in zip(judged, chosen, strict=True)]
        own = [number("", a.text, str(p.answer)) is True for a, p in zip(plain, chosen, strict=True)]
        warned = [answer.distance > 1 for answer in judged]
        harmed = [w for w, r, o in zip(warned, right, own, strict=True) if o and not r]
        rows.append(
            {
                "set": name, "problems": len(chosen),
                "target_accuracy": sum(own) / len(own), "target_95": wilson(sum(own), len(own)),
                "judge_accuracy": sum(right) / len(right), "judge_95": wilson(sum(right), len(right)),
                "mcnemar_p": mcnemar(right, own),
                "warned": sum(warned), "harmed": len(harmed), "harmed_and_warned": sum(harmed),
            }
        )  # fmt: skip
    return rows


def real(model: Path, gsm8k: Path, spec_bench: Path, train: int, held: int, each: int) -> dict[str, object]:
    """GSM8K as training questions against the categories of Spec-Bench, on a real model with its chat template."""
    tokenizer, loaded = load_tokenizer(str(model)), load_model(str(model), dtype="float32")
    decoder = JudgeDecoder(loaded, tokenizer)

    def chat(text: str) -> Prompt:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:PROMPT_TOKENS]
        return [{"role": "user", "content": tokenizer.decode(ids)}]

    questions = [json.loads(line)["question"] for line in gsm8k.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(questions)
    texts = {"train": questions[:train], "GSM8K (trained)": questions[train : train + held]}
    for line in spec_bench.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        # MT-bench's categories have ten questions each.
        few = entry["category"] not in ("translation", "summarization", "qa", "math_reasoning", "rag")
        texts.setdefault(f"MT-bench {entry['category']}" if few else entry["category"], []).append(entry["turns"][0])
    bar = tqdm(texts.items(), desc="reading prompts")
    sets = {
        name: points(
            decoder, decoder, [chat(t) for t in (of if "GSM8K" in name or name == "train" else of[:each])], "before"
        )
        for name, of in bar
    }
    half = rounded(decoder, [chat(t) for t in texts["GSM8K (trained)"]], "before", sets["train"]["prompt's last token"])
    return {
        "hidden_size": loaded.config.hidden_size, "train": train, "prompt_tokens": PROMPT_TOKENS,
        "sizes": {name: len(of["draft's mean"]) for name, of in sets.items()},
        "in_bfloat16_above_1": half,
        "rows": compared(sets.pop("train"), "GSM8K (trained)", sets),
    }  # fmt: skip


def embedded(sets: Mapping[str, Sequence[Problem]], train: int) -> dict[str, object]:
    """The candidates on the embedded pair, where its judge reads: after the final norm."""
    pair, draft = load_pair()
    every = {"train": draw_many(0, "head", train), **sets}
    found = {
        name: points(pair, draft, [prompt_of(p) for p in of], "after")
        for name, of in tqdm(every.items(), desc="reading problems")
    }
    prompts = [prompt_of(problem) for problem in sets["collections (trained)"]]
    half = rounded(pair, prompts, "after", found["train"]["prompt's last token"])
    return {
        "hidden_size": pair.target.config.hidden_size, "train": train,
        "sizes": {name: len(of) for name, of in every.items()},
        "in_bfloat16_above_1": half,
        "rows": compared(found.pop("train"), "collections (trained)", found),
    }  # fmt: skip


def table(told: Mapping[str, object]) -> str:
    """The results as Markdown."""
    lines = [f"Made by `{told['command']}` on {told['machine']}.", ""]
    for key, title in (("embedded", "The embedded pair"), ("real", f"{told.get('model')}, chat template")):
        if key not in told:
            continue
        part = told[key]
        names = list(part["rows"][0]["sets"])
        sizes = ", ".join(f"{part['sizes'][name]} {name}" for name in names)
        lines += [
            f"## {title}: {part['train']} training questions, hidden size {part['hidden_size']}",
            "",
            "Share of prompts said to be unlike the training questions (distance above 1), and in brackets the AUC "
            f"against held-out training questions. Prompts: {sizes}.",
            "",
            f"| state | distance | {' | '.join(names)} |",
            f"|---|---|{'---|' * len(names)}",
        ]
        for row in part["rows"]:
            cells = [
                f"{cell['above_1']:.0%}" + ("" if "trained" in name else f" ({cell['auc']:.3f})")
                for name, cell in row["sets"].items()
            ]
            lines.append(f"| {row['state']} | {row['distance']} | {' | '.join(cells)} |")
        lines.append("")
        lines += [
            f"Fitted in float32 and read in bfloat16, {part['in_bfloat16_above_1']:.0%} of the held-out training "
            "questions are above 1 (prompt's last token, low-rank Mahalanobis).",
            "",
        ]
    lines += [
        "## What the embedded judge does there",
        "",
        "Harmed: the target alone is right and the judge's answer is wrong.",
        "",
        "| problems | | target alone [95%] | judge [95%] | McNemar p | warned | harmed | of these warned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in told["decoded"]:
        target, judge = (
            f"{row[f'{who}_accuracy']:.1%} [{100 * row[f'{who}_95'][0]:.1f}, {100 * row[f'{who}_95'][1]:.1f}]"
            for who in ("target", "judge")
        )
        lines.append(
            f"| {row['set']} | {row['problems']} | {target} | {judge} | {row['mcnemar_p']:.2g} | "
            f"{row['warned'] / row['problems']:.0%} | {row['harmed']} | {row['harmed_and_warned']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write ``familiarity.json`` and ``familiarity.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=int, default=500, help="training questions of the embedded pair")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--unseen", type=int, default=100, help="problems of the family the judge never saw")
    parser.add_argument("--model", type=Path, help="a real model, with the two files of prompts")
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--spec-bench", type=Path)
    parser.add_argument("--real-train", type=int, default=200)
    parser.add_argument("--real-held", type=int, default=100)
    parser.add_argument("--real-each", type=int, default=20, help="prompts of each category")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    # Names of files alone: where they lie is nobody's business.
    told: dict[str, object] = {
        "command": " ".join(["python", sys.argv[0], *(Path(a).name if "/" in a else a for a in sys.argv[1:])]),
        "machine": machine(),
    }
    sets = test_sets(args.problems, args.unseen)
    told["decoded"] = decoded(sets)
    told["embedded"] = embedded(sets, args.train)
    if args.model:
        told["model"] = args.model.name
        told["real"] = real(args.model, args.gsm8k, args.spec_bench, args.real_train, args.real_held, args.real_each)
    write_json(args.out / "familiarity.json", told)
    write_text(args.out / "familiarity.md", table(told))
    print(table(told))


if __name__ == "__main__":
    main()
