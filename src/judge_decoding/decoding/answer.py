"""What can be chosen for an answer, and what an answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from judge_decoding.core.rounds import Cause, FinishReason, Round, Stats
from judge_decoding.decoding.guards import Guard
from judge_decoding.decoding.lengths import DraftLength
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.rules.base import VerificationRule


class Options(TypedDict, total=False):
    """What can be chosen for each answer.

    Attributes:
        threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
        rule: a verification rule instead of the judge, such as ``TopK(4)``, or its spelling, ``"top_k(k=4)"``.
        num_draft_tokens: draft length M; where a policy is chosen, the one it starts from.
        draft_length: a draft-length policy, made with M for each answer: `Fixed` (the default), `Heuristic`,
            `Confident`, `CostOptimal`, or any function from M to a `DraftLength`.
        sampling: how tokens are chosen, instead of the next two.
        temperature: 0 is greedy; by default tokens are chosen as the model's generation configuration says.
        seed: makes a sampled answer repeatable.
        stop: strings that end the answer with the token that completes one, as ``stop_strings`` of transformers does;
            special tokens count by their names. By default those of the generation configuration.
        guards: where no token may be rescued.
        logprobs: tell the target's log-probability of every new token (`Round.logprobs`); refused with a lossy rule.
        for_training: the answer is to be training data of another model; refused with a lossy rule.
        details: tell probabilities, rank, entropy and the target's alternatives of every draft token
            (`Round.details`). It changes no token and costs a little time.
    """

    threshold: float | None
    rule: VerificationRule | str | None
    num_draft_tokens: int | None
    draft_length: Callable[[int], DraftLength]
    sampling: SamplingParams | None
    temperature: float | None
    seed: int | None
    stop: str | Sequence[str]
    guards: Sequence[Guard]
    logprobs: bool
    for_training: bool
    details: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one round adds: the event, and the text of each kept token (joined, they are the text).

    ``finish_reason`` says why the answer ends with this chunk; None while it goes on.
    """

    round: Round
    pieces: tuple[str, ...]
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The text this round adds."""
        return "".join(self.pieces)


def is_lossy(rule: VerificationRule, rounds: Iterable[Round], *, greedy: bool) -> bool:
    """Whether lossy verification may have changed an answer.

    A greedy answer without rescued tokens is the target's own. Above temperature 0 a lossy rule changes the
    distribution even where no token was rescued.
    """
    return not rule.is_lossless and (not greedy or any(Cause.RESCUED in event.causes for event in rounds))


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer.

    Attributes:
        text: the answer.
        token_ids: its tokens, an end token included.
        rounds: how it came about.
        seconds: how long it took, the prompt included.
        finish_reason: "stop" if it ended by itself, "length" at the token budget, "context" at the context length.
        stats: the counts of the rounds.
        pieces: the texts of the tokens; joined, they are the text.
        lossy: lossy verification may have changed the answer; see `is_lossy`. Whoever collects training data for
            another model should drop such answers.
    """

    text: str
    token_ids: tuple[int, ...]
    rounds: tuple[Round, ...]
    seconds: float
    finish_reason: FinishReason
    stats: Stats = field(repr=False)
    pieces: tuple[str, ...] = field(repr=False)
    lossy: bool = False

    @property
    def distance(self) -> float | None:
        """How unlike the questions the judge was trained on the prompt is; above 1 it is unlike 95% of them.

        None without a judge, or with one that does not know.
        """
        return next((event.distance for event in self.rounds if event.distance is not None), None)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, reading the prompt included."""
        return len(self.token_ids) / self.seconds if self.seconds else 0.0

    def _repr_html_(self) -> str:
        """How notebooks show it: each token by why it was kept."""
        from judge_decoding.report.fragment import answer_fragment  # noqa: PLC0415  (only notebooks ask for it)

        return answer_fragment(self.pieces, self.rounds)
