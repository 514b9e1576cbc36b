"""An answer that the server keeps, so that its tokens can be marked and continued from, and it can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from judge_decoding.core.rounds import Cause, FinishReason, Round
from judge_decoding.core.samples import Sample
from judge_decoding.core.spans import body
from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import fingerprint
from judge_decoding.decoding.answer import is_lossy
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.recording import record, recorded_threshold
from judge_decoding.playground.asking import AnswerPlan


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """What the target alone answered."""

    text: str
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldAnswer:
    """An answer by judge decoding.

    Attributes:
        plan: what was asked.
        rounds: the rounds, first those that an earlier answer gave (for "what if").
        pieces: the text of each token.
        finish_reason: why it ended; None if it was stopped.
        seconds: decoding time; None where a part was decoded before.
        alone: the target's own answer, if it was asked for.
        id: its name, which nobody can guess.
    """

    plan: AnswerPlan
    rounds: tuple[Round, ...]
    pieces: tuple[str, ...]
    finish_reason: FinishReason | None
    seconds: float | None
    alone: TargetAnswer | None = None
    id: str = ""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Its tokens."""
        return tuple(token for event in self.rounds for token in event.token_ids)

    def sample(self) -> Sample:
        """Return the answer as it stands in files of answers."""
        plan, pair = self.plan, self.plan.pair
        temperature = pair.decoder.sampling(plan.settings.temperature).temperature
        about: dict[str, object] = {
            "target": pair.target, "draft": pair.draft, "judge": pair.judge,
            "rule": str(plan.rule), "threshold": recorded_threshold(plan.rule, plan.guards),
            "temperature": temperature, "seed": plan.settings.seed if temperature else None,
            "seconds": self.seconds, "finish_reason": self.finish_reason,
            "lossy": is_lossy(plan.rule, self.rounds, greedy=temperature == 0),
        }  # fmt: skip
        if self.alone is not None:
            about |= {
                "target_text": self.alone.text, "target_tokens": self.alone.tokens,
                "target_seconds": self.alone.seconds,
            }  # fmt: skip
        return record(plan.question, self.rounds, self.pieces, pair.decoder, **about)

    def case(self, first: int | None, last: int, annotator: str, seconds: float) -> Case:
        """Return the answer as a labelled one: its tokens ``first`` to ``last`` are wrong, or None is.

        Raises:
            JudgeDecodingError: there are no such tokens.
        """
        text, count = "".join(self.pieces), len(self.pieces)
        errors: tuple[tuple[int, int], ...] = ()
        if first is not None:
            if not first <= last < count:
                raise JudgeDecodingError(f"There are no tokens {first} to {last} of {count}; reload the page.")
            begin = len("".join(self.pieces[:first]))
            end = begin + len("".join(self.pieces[first : last + 1]))
            errors = ((body(text, begin, end), end),)
        decoder, ids = self.plan.pair.decoder, self.token_ids
        return Case(
            question=self.plan.text,
            answer=text,
            errors=errors,
            ended=self.finish_reason == "stop" and ids[-1] in decoder.end_ids,
            source="human",
            writer=self.plan.pair.target or self.plan.pair.name,
            annotator=annotator,
            seconds=round(seconds, 1) or None,
            token_ids=(*self.plan.ids[0].tolist(), *ids),
            tokenizer=fingerprint(decoder.tokenizer),
        )

    def before(self, token: int) -> tuple[tuple[Round, ...], tuple[str, ...]]:
        """Return the rounds as they were if the rule had rejected token number ``token``, and their tokens' texts.

        The last round then ends with the target's own token, whose text is not there yet: it depends on the next.

        Raises:
            JudgeDecodingError: there is no such token, or it is the target's own already.
        """
        at = 0
        for number, event in enumerate(self.rounds):
            if token >= at + len(event.token_ids):
                at += len(event.token_ids)
                continue
            place = token - at
            own = event.target_ids[place]
            if event.causes[place] not in (Cause.AGREED, Cause.RESCUED) or own == event.token_ids[place]:
                raise JudgeDecodingError("This token is the target's own; choose one that the judge rescued.")
            cut = replace(
                event, token_ids=(*event.token_ids[:place], own), causes=(*event.causes[:place], Cause.CORRECTION),
                rescuers=(*event.rescuers[:place], "") if event.rescuers else (), logprobs=None, stopped=False,
            )  # fmt: skip
            return (*self.rounds[:number], cut), self.pieces[:token]
        raise JudgeDecodingError(f"The answer has {at} tokens, and no number {token}; reload the page.")
