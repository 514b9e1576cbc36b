"""What decoding does with a model, held against transformers' own ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from families import VOCAB_SIZE
from transformers import PreTrainedModel

from judge_decoding import Case, Judge, JudgeDecodingError, PromptLookup, decode, train_head
from judge_decoding.decoding.backends.static import lm
from judge_decoding.decoding.backends.static.requirements import check_compiles
from judge_decoding.decoding.backends.static.target import StaticTarget
from judge_decoding.decoding.choices import as_drafter
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.errors import CannotCompileError
from judge_decoding.models.abilities import abilities, as_causal_lm
from judge_decoding.models.teacher_forcing import hidden_states
from tiny import WORDS, Scripted, request, run, run_uncompiled, tokens, word_tokenizer

EXACT = "exact"
OTHER = "other tokens"
YES, EXPECTED = "yes", "expected"
COUNT = 24
PROMPTS = ([7], [5, 6, 7, 8, 9, 10, 11, 12, 13, 5, 6, 7])
BATCH = ([5, 6, 7, 8, 9, 10, 11, 12, 13, 5, 6, 7], [20, 21, 22], [30, 31, 30, 31, 30])


@dataclass
class Row:
    """What was found of a model: by way of decoding "exact", "refused: ..." or what is wrong."""

    model: str
    found: dict[str, str] = field(default_factory=dict)
    batches: bool = False
    """Whether rows share forward passes."""

    @property
    def wrong(self) -> dict[str, str]:
        """What is neither exact nor refused."""
        return {way: what for way, what in self.found.items() if what != EXACT and not what.startswith("refused: ")}


def generate(model: Any, prompt: list[int], count: int = COUNT) -> list[int]:
    """What transformers says, greedily."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


def _consistent(model: PreTrainedModel, prompt: list[int]) -> bool:
    """Whether ``generate`` gives the same answer whatever it has answered before.

    RecurrentGemma keeps its state in the model, and begins a prompt of one token with that of the answer before.
    """
    answers = []
    for other in BATCH[:2]:
        generate(model, other, 2)
        answers.append(generate(model, prompt))
    return answers[0] == answers[1]


def check(name: str, model: PreTrainedModel) -> Row:
    """Decode in all ways."""
    row = Row(name)
    prompts = [prompt for prompt in PROMPTS if _consistent(model, prompt)]
    wanted = [generate(model, prompt) for prompt in prompts]
    with _way(row, "alone") as keep:
        as_causal_lm(model)
        keep(all(tokens(run(model, None, p, max_new_tokens=COUNT)) == w for p, w in zip(prompts, wanted, strict=True)))
    drafters: dict[str, Callable[[list[int], list[int]], Drafter | None]] = {
        "own draft": lambda *_: as_drafter(model, model),
        "prompt lookup": lambda *_: PromptLookup(),
        "wrong draft": lambda *_: Scripted(lambda ids, count: [(ids[-1] * 7 + 3) % VOCAB_SIZE] * count),
        "half-right draft": lambda p, w: Scripted(lambda ids, n: (w[len(ids) - len(p) :][:2] + [3] * n)[:n]),
    }
    for way, make in drafters.items():
        with _way(row, way) as keep:
            keep(all(
                tokens(run(model, make(p, w), p, num_draft_tokens=9, max_new_tokens=COUNT)) == w
                for p, w in zip(prompts, wanted, strict=True)
            ))  # fmt: skip
    alone = [generate(model, prompt, 20) for prompt in BATCH]
    with _way(row, "batch") as keep:
        row.batches = not abilities(model).cannot_batch
        keep(_batch(model, None) == alone)
    with _way(row, "uneven batch") as keep:
        keep(_batch(model, Scripted(lambda ids, count: _uneven(ids, count, alone))) == alone)
    with _way(row, "judge") as keep:
        _judged(model, keep)
    return row


@contextmanager
def _way(row: Row, way: str) -> Iterator[Callable[[bool], None]]:
    """One way of decoding; what it raises is kept."""
    try:
        yield lambda good: row.found.__setitem__(way, EXACT if good else OTHER)
    except JudgeDecodingError as error:
        row.found[way] = f"refused: {error}"
    except Exception as error:  # noqa: BLE001  (whatever a model's own code raises is what is looked for)
        row.found[way] = f"{type(error).__name__}: {str(error)[:100]}"


def compiled(model: PreTrainedModel, *, really: bool) -> str:
    """Whether the static back end gives in a batch that grows unevenly what ``generate`` says: `YES`, or why not.

    Args:
        model: the model.
        really: compile it; else its graph runs as it is, which is the same but for the compiler.
    """
    alone = [generate(model, prompt, 20) for prompt in BATCH]
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(lm, "has_few", lambda _: False)  # one graph, which reads few tokens, too
        try:
            check_compiles(model)
            if not really:
                run_uncompiled(patch)
            target = StaticTarget(model, folder=Path(folder))
        except CannotCompileError as error:
            return f"no: {error}"
        drafter = Scripted(lambda ids, count: _uneven(ids, count, alone))
        if _batch(target, drafter) != alone:
            return OTHER
        return YES if really else EXPECTED


def _batch(model: PreTrainedModel | StaticTarget, drafter: Drafter | None) -> list[list[int]]:
    inner = model.model if isinstance(model, StaticTarget) else model
    rows = [request(inner, prompt, num_draft_tokens=9, max_new_tokens=20) for prompt in BATCH]
    found: list[list[int]] = [[] for _ in rows]
    for row, event in decode(model, drafter, rows):
        found[row] += event.token_ids
    return found


def _uneven(ids: list[int], count: int, answers: list[list[int]]) -> list[int]:
    """Drafts of which none, three and nine tokens are right, by row, so that rows grow apart."""
    row = next(i for i, prompt in enumerate(BATCH) if ids[: len(prompt)] == prompt)
    at = len(ids) - len(BATCH[row])
    right = answers[row][at : at + (0, 3, 9)[row]]
    return [*right, *[(answers[row][at] + 1) % VOCAB_SIZE] * count][:count]


def _judged(model: PreTrainedModel, keep: Callable[[bool], None]) -> None:
    """Train a head; in decoding it must say of each token what it says of the state in a plain forward pass."""
    tokenizer = word_tokenizer()
    cases = [
        Case(question=f"one {word}", answer=" two three", errors=((0, 4),) if i % 2 else ())
        for i, word in enumerate(WORDS)
    ]
    head = train_head(model, tokenizer, cases)
    prompt = PROMPTS[1]
    wanted = generate(model, prompt)
    junk = Scripted(lambda ids, count: [(ids[-1] * 7 + 3) % VOCAB_SIZE] * count)
    keep(tokens(run(model, junk, prompt, Judge(head, 1.0), max_new_tokens=COUNT)) == wanted)
    kept = run(model, junk, prompt, Judge(head, 0.0), num_draft_tokens=3, max_new_tokens=12)
    ids = [*prompt, *tokens(kept)]
    states = hidden_states(model, [ids], head.config.norm, head.config.layer)[0]
    at, worst = len(prompt), 0.0
    for event in kept:
        drafted = states[at : at + len(event.draft_ids)]
        if len(drafted):
            worst = max(worst, float((head.probability(drafted) - torch.tensor(event.scores)).abs().max()))
        at += len(event.token_ids)
    if worst > 1e-2:
        raise ValueError(f"the judge's score in decoding differs by {worst:.3f} from that of a plain forward pass")
