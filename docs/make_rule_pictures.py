"""Draw the pictures of docs/rules.md: ``python docs/make_rule_pictures.py``. Needs matplotlib (the extra ``eval``).

Every number in them comes out of the rules themselves, on made-up distributions. The files do not change from run to
run.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from judge_decoding import Evidence, VerificationRule, parse_rule
from judge_decoding.rules.divergence import js, kl

FOLDER = Path(__file__).parent / "pictures"
TARGET, DRAFT, KEPT, OUT, DOUBT = "#1f6f8b", "#e3b04b", "#4c956c", "#222222", "#c44536"
GRID = 2000

# One position: eight tokens, the target's and the draft's probabilities. The draft likes c and h too much.
P = torch.tensor([0.34, 0.26, 0.14, 0.10, 0.07, 0.05, 0.03, 0.01])
Q = torch.tensor([0.20, 0.12, 0.30, 0.06, 0.14, 0.03, 0.05, 0.10])

# Rules that look at one token, at temperature 1.
TOKENS = {
    "exact": "exact",
    "top_k": "top_k(k=3)",
    "min_probability": "min_probability(p=0.06)",
    "margin_ratio": "margin_ratio(k=3, ratio=0.4)",
    "relaxed": "relaxed(n=10, delta=0.3)",
    "typical": "typical(epsilon=0.09, delta=0.3)",
    "lenience": "lenience(factor=0.5)",
    "mentored_simple": "mentored_simple(alpha=0.3)",
    "mentored": "mentored(kl=0.1)",
    "ensemble": "ensemble(weight=0.5)",
    "cascade": "cascade(alpha=0.65)",
}


def at_one_position(rule: VerificationRule) -> tuple[Tensor, Tensor]:
    """How often each token stays if it is drafted [8], and the distribution of what comes out [8]."""
    size = len(P)
    coins = ((torch.arange(GRID) + 0.5) / GRID)[:, None]
    kept, out = torch.zeros(size), torch.zeros(size)
    for token in range(size):
        seen = Evidence(
            torch.full((GRID, 1), token), P.log().expand(GRID, 2, size), Q.expand(GRID, 1, size),
            uniform=coins, greedy=False,
        )  # fmt: skip
        kept[token] = rule.accept(seen).float().mean()
        out[token] += Q[token] * kept[token]
        out += Q[token] * (1 - kept[token]) * rule.replacement(seen, 0)[0]
    return kept, out


def sequence(seed: int, count: int, sharpness: float = 2.2, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """The target's logits [1, count + 1, 8] and the draft's distributions [1, count, 8] along a draft."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(1, count + 1, len(P), generator=generator)
    near = logits[:, :-1] + noise * torch.randn(1, count, len(P), generator=generator)
    return logits, near.softmax(-1)


def draw_tokens(name: str, spelling: str) -> None:
    """Bars of p and q, what comes out, and how often each token stays."""
    kept, out = at_one_position(parse_rule(spelling))
    figure, axes = plt.subplots(figsize=(5.4, 2.3))
    places = torch.arange(len(P))
    axes.bar(places - 0.2, P, 0.38, color=TARGET, label="target p")
    axes.bar(places + 0.2, Q, 0.38, color=DRAFT, label="draft q")
    axes.hlines(out, places - 0.42, places + 0.42, color=OUT, linewidth=1.6, label="what comes out")
    for place, share in enumerate(kept.tolist()):
        axes.add_patch(plt.Rectangle((place - 0.42, -0.105), 0.84, 0.06, facecolor="#e8e8e8"))
        axes.add_patch(plt.Rectangle((place - 0.42, -0.105), 0.84 * share, 0.06, facecolor=KEPT))
        axes.text(place, -0.076, f"{share:.0%}", ha="center", va="center", fontsize=7)
    axes.text(-0.55, -0.076, "stays", ha="right", va="center", fontsize=7)
    axes.set(title=spelling, xlim=(-0.6, len(P) - 0.4), ylim=(-0.12, 0.38), xticks=[], yticks=[0, 0.1, 0.2, 0.3])
    for place in range(len(P)):
        axes.text(place, -0.028, "abcdefgh"[place], ha="center", va="center", fontsize=8)
    axes.legend(frameon=False, fontsize=7, loc="upper right")
    finish(figure, axes, name)


def draw_positions(
    name: str,
    spelling: str,
    values: Tensor,
    kept: Tensor,
    agreed: Tensor,
    limit: float,
    label: str,
    above: bool = False,
) -> Axes:
    """A bar for each position of a draft, coloured by what became of the token, and the rule's limit."""
    figure, axes = plt.subplots(figsize=(5.4, 2.0))
    colours = [TARGET if a else KEPT if k else DOUBT for a, k in zip(agreed.tolist(), kept.tolist(), strict=True)]
    axes.bar(range(len(values)), values, 0.7, color=colours)
    axes.axhline(limit, color=OUT, linewidth=1, linestyle="--")
    axes.text(len(values) - 0.45, limit, "kept above" if above else "kept below", fontsize=7, va="bottom", ha="left")
    for colour, word in ((TARGET, "agreed"), (KEPT, "rescued"), (DOUBT, "rejected")):
        axes.bar(0, 0, color=colour, label=word)
    axes.set(title=spelling, ylabel=label, xlabel="draft token", xticks=range(len(values)))
    axes.set_xticklabels(range(1, len(values) + 1))
    axes.set_xlim(-0.6, len(values) + 0.9)
    axes.legend(frameon=False, fontsize=7, ncols=3, loc="upper center")
    axes.set_ylim(0, 1.35 * max(float(values.max()), limit))
    finish(figure, axes, name)
    return axes


def draw_judge() -> None:
    """Scores of a head; the tokens that agree stay whatever they score."""
    scores = torch.tensor([0.97, 0.31, 0.92, 0.88, 0.95, 0.18, 0.64, 0.90])
    agreed = torch.tensor([True, True, False, True, False, False, True, True])
    draw_positions("judge", "judge(threshold=0.7)", scores, agreed | (scores > 0.7), agreed, 0.7, "score", above=True)


def draw_divergences() -> None:
    """How far the draft is from the target at each position."""
    logits, draft = (values.roll(-1, 1) for values in sequence(9, 8))
    ids = draft.argmax(-1)
    ids[0, [0, 3, 5]] = draft[0, [0, 3, 5]].topk(2).indices[:, 1]  # so that not all agree
    seen = Evidence(ids, logits, draft_probs=draft)
    target = seen.target_probs[:, :-1]
    for name, spelling, values, limit in (
        ("fuzzy", "fuzzy(threshold=0.1, divergence=js)", js(target, draft)[0], 0.1),
        ("kl_judge", "kl_judge(tau=0.3, confidence=0.9)", kl(target, draft)[0], 0.3),
    ):
        kept = parse_rule(spelling).accept(seen)[0]
        label = "divergence" if name == "fuzzy" else "KL(p || q)"
        draw_positions(name, spelling, values.clamp(max=1.2), kept, seen.agreed[0], limit, label)


def draw_running_surprise() -> None:
    """The mean of the surprises, each of which may be higher."""
    surprises = torch.tensor([0.1, 2.9, 0.3, 1.2, 4.5, 0.2, 3.0, 3.5])
    logits = torch.full((1, 9, 8), -20.0)
    for place, surprise in enumerate(surprises.tolist()):  # token 0 has it; token 1 has the rest, and is the target's
        logits[0, place, 0], logits[0, place, 1] = -surprise, torch.log1p(-torch.exp(torch.tensor(-surprise)))
    seen = Evidence(torch.zeros(1, 8, dtype=torch.long), logits)
    kept = parse_rule("running_surprise(epsilon=2, beta=0.5)").accept(seen)[0]
    mean, means = float(surprises[0]), []
    for surprise in surprises.tolist():
        mean = 0.5 * mean + 0.5 * surprise
        means.append(mean)
    figure, axes = plt.subplots(figsize=(5.4, 2.0))
    agreed = seen.agreed[0].tolist()
    colours = [TARGET if a else KEPT if k else DOUBT for a, k in zip(agreed, kept.tolist(), strict=True)]
    axes.bar(range(8), surprises, 0.7, color=colours)
    axes.plot(range(8), means, color=OUT, marker="o", markersize=3, linewidth=1, label="running mean")
    axes.axhline(2, color=OUT, linewidth=1, linestyle="--")
    axes.text(7.55, 2, "kept below", fontsize=7, va="bottom")
    for colour, word in ((TARGET, "agreed"), (KEPT, "rescued"), (DOUBT, "rejected")):
        axes.bar(0, 0, color=colour, label=word)
    axes.set(title="running_surprise(epsilon=2, beta=0.5)", ylabel="-log p(x)", xlabel="draft token", ylim=(0, 6))
    axes.set_xticks(range(8), range(1, 9))
    axes.set_xlim(-0.6, 8.9)
    axes.legend(frameon=False, fontsize=7, ncols=4, loc="upper center")
    finish(figure, axes, "running_surprise")


def draw_entropy_gate() -> None:
    """A mismatch stays where the target is unsure and the window after it agrees."""
    entropies = [0.1, 0.8, 0.2, 0.1, 0.3, 0.7, 0.2, 0.15, 0.75, 0.2]
    flat, logits = torch.log(torch.tensor(8.0)), torch.zeros(1, 11, 8)
    for place, share in enumerate(entropies):
        low, high = 0.0, 20.0
        for _ in range(60):  # how sharp logits have this share of the greatest entropy
            middle = (low + high) / 2
            probs = (middle * torch.linspace(1, 0, 8)).softmax(-1)
            low, high = (middle, high) if torch.special.entr(probs).sum() / flat > share else (low, middle)
        logits[0, place] = middle * torch.linspace(1, 0, 8)
    ids = torch.tensor([[0, 1, 0, 0, 0, 1, 0, 1, 1, 0]])
    seen = Evidence(ids, logits)
    kept = parse_rule("entropy_gate(entropy=0.3, window=3)").accept(seen)[0]
    draw_positions(
        "entropy_gate", "entropy_gate(entropy=0.3, window=3)", torch.tensor(entropies), kept, seen.agreed[0], 0.3,
        "entropy / log V", above=True,
    )  # fmt: skip


def draw_block() -> None:
    """How often at least i draft tokens stay, over many drafts of eight."""
    rows, count = 20_000, 8
    logits, draft = sequence(4, count, sharpness=1.2, noise=0.9)
    generator = torch.Generator().manual_seed(0)
    ids = draft[0].multinomial(rows, replacement=True, generator=generator).T
    coins = torch.rand(rows, count, generator=generator)
    size = len(P)
    shares = {}
    for name in ("exact", "block"):
        seen = Evidence(
            ids, logits.expand(rows, count + 1, size), draft.expand(rows, count, size), uniform=coins, greedy=False
        )
        shares[name] = parse_rule(name).accept(seen).long().cumprod(1).float().mean(0)
    figure, axes = plt.subplots(figsize=(5.4, 2.0))
    places = torch.arange(count)
    axes.bar(
        places - 0.2, shares["exact"], 0.38, color=TARGET, label=f"exact: {float(shares['exact'].sum()):.2f} tokens"
    )
    axes.bar(places + 0.2, shares["block"], 0.38, color=KEPT, label=f"block: {float(shares['block'].sum()):.2f} tokens")
    axes.set(title="block", ylabel="still accepted", xlabel="draft token", ylim=(0, 1))
    axes.set_xticks(range(count), range(1, count + 1))
    axes.legend(frameon=False, fontsize=7)
    finish(figure, axes, "block")


def finish(figure: Figure, axes: Axes, name: str) -> None:
    """Take away what says nothing, and write the file."""
    axes.spines[["top", "right"]].set_visible(False)
    if name in TOKENS:
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_bounds(0, 0.38)
    axes.title.set_fontfamily("monospace")
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)


def main() -> None:
    """Draw them all."""
    FOLDER.mkdir(exist_ok=True)
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "rules",
            "font.size": 8,
            "axes.titlesize": 9,
            "font.family": "sans-serif",
        }
    )
    for name, spelling in TOKENS.items():
        draw_tokens(name, spelling)
    draw_block()
    draw_judge()
    draw_divergences()
    draw_running_surprise()
    draw_entropy_gate()


if __name__ == "__main__":
    main()
