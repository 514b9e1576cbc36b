"""The options of an answer, and the answer itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from judge_decoding.core.rounds import Cause, FinishReason, Round, Stats
from judge_decoding.decoding.guards import Guard
from judge_decoding.decoding.lengths import DraftLength
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.rules.base import VerificationRule


class Options(TypedDict, total=False):
    """The options of each answer.

    Attributes:
        threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
        rule: a verification rule instead of the judge, such as ``TopK(4)``, or its spelling, ``"top_k(k=4)"``.
        num_draft_tokens: draft length M; with a draft-length policy, its starting value.
        draft_length: a draft-length policy, created with M for each answer: `Fixed` (the default), `Heuristic`,
            `Confident`, `CostOptimal`, or any function from M to a `DraftLength`.
        sampling: sampling parameters, instead of the next two options.
        temperature: 0 is greedy; the default follows the model's generation configuration.
        seed: makes a sampled answer reproducible.
        stop: strings that end the answer with the token that completes one, like ``stop_strings`` of transformers;
            special tokens match by name. The default follows the generation configuration.
        guards: guards that forbid rescues.
        logprobs: return the target's log-probability of each new token (`Round.logprobs`); refused with a lossy rule.
        for_training: the answer will be training data for another model; refused with a lossy rule.
        details: return probabilities, rank, entropy and the target's alternatives of each draft token
            (`Round.details`). This changes no token and costs a little time.
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
    """The output of one round: the event, and the text of each kept token (joined, they are the text).

    ``finish_reason`` is why the answer ends with this chunk; None if it continues. ``lossy`` is whether lossy
    verification may have changed the answer so far; see `is_lossy`.
    """

    round: Round
    pieces: tuple[str, ...]
    finish_reason: FinishReason | None = None
    lossy: bool = False

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


_SHOWN = 500
"""The most letters of an answer in its repr."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer.

    Attributes:
        text: the answer.
        token_ids: its tokens, an end token included.
        rounds: the rounds that produced it.
        seconds: decoding time, including the prompt.
        finish_reason: "stop" if it ended by itself, "length" at the token budget, "context" at the context length.
        stats: the counts of the rounds.
        pieces: the texts of the tokens; joined, they are the text.
        lossy: whether lossy verification may have changed the answer; see `is_lossy`. Drop such answers when
            collecting training data for another model.
    """

    text: str
    token_ids: tuple[int, ...]
    rounds: tuple[Round, ...]
    seconds: float
    finish_reason: FinishReason
    stats: Stats
    pieces: tuple[str, ...]
    lossy: bool = False

    def __repr__(self) -> str:
        """A few lines, however long the answer is."""
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}..."
        return (
            f"Generation(text={text!r}, finish_reason={self.finish_reason!r}, lossy={self.lossy}, "
            f"{len(self.token_ids)} tokens in {len(self.rounds)} rounds and {self.seconds:.2f} s, "
            f"mean acceptance length {self.stats.tokens_per_forward:.2f})"
        )

    @property
    def distance(self) -> float | None:
        """How unlike the judge's training questions the prompt is; above 1 it is unlike 95% of them.

        None without a judge, or with a judge that cannot measure it.
        """
        return next(iter(self.stats.distances), None)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, including the time for the prompt."""
        return len(self.token_ids) / self.seconds if self.seconds else 0.0

    def _repr_html_(self) -> str:
        """Render the answer for notebooks, each token marked by why it was kept."""
        from judge_decoding.report.fragment import answer_fragment  # noqa: PLC0415  (needed by notebooks only)

        return answer_fragment(self.pieces, self.rounds)
