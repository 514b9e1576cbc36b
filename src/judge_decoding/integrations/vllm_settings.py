"""What a server is told about the judge, and what a request says of it: the parts of the vLLM plugin without vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from judge_decoding.decoding.choices import choose_rule
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.base import AnyOf, VerificationRule
from judge_decoding.rules.divergence import Fuzzy, KLJudge
from judge_decoding.rules.exact import Exact
from judge_decoding.rules.judge import Judge, check_threshold
from judge_decoding.rules.likelihood import MarginRatio, MinProbability, Relaxed, RunningSurprise, TopK, Typical

KEY = "judge"
"""Of ``--additional-config``, and of a request's ``extra_args``: there it turns the judge off or on."""
THRESHOLD = "judge_threshold"
"""Of a request's ``extra_args``: another threshold of the judge."""

_OFF, _ON = (False, 0, "off"), (True, 1, "on")
_MANY = 1000  # thresholds that are remembered; a client may send any number of them
# Their criterion, beside standard verification, tosses no coin and does not look at other tokens' coins.
_WITHOUT_COINS = (
    Exact, Fuzzy, Judge, KLJudge, MarginRatio, MinProbability, Relaxed, RunningSurprise, TopK, Typical,
)  # fmt: skip


class Settings(BaseModel):
    """``{"judge": {...}}`` of ``--additional-config``.

    ``head`` and ``threshold``, or a ``rule`` in its spelling (with ``head`` if it has a judge). Requests that ask for
    log-probabilities are verified by standard verification (``logprobs`` "strict") or refused ("refuse").
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    head: str | None = None
    threshold: float | None = None
    rule: str | None = None
    logprobs: Literal["strict", "refuse"] = "strict"

    @classmethod
    def read(cls, given: object) -> Self:
        """Check what the server was given.

        Raises:
            JudgeDecodingError: it is no such dictionary, or names neither a head nor a rule.
        """
        if not isinstance(given, Mapping):
            raise JudgeDecodingError(
                f'"judge" in --additional-config is {given!r}; give a dictionary, as in '
                '{"judge": {"head": "HEAD"}}.'
            )
        try:
            settings = cls.model_validate(dict(given))
        except ValidationError as error:
            raise JudgeDecodingError(
                f'"judge" in --additional-config is not right: {first_problem(error)}; its keys are '
                f"{', '.join(cls.model_fields)}."
            ) from error
        if settings.head is None and settings.rule is None:
            raise JudgeDecodingError('"judge" in --additional-config has neither a head nor a rule; give one.')
        return settings


@dataclass(frozen=True)
class Bench:
    """The rule of a server and, made from it, those of its requests."""

    settings: Settings
    rule: VerificationRule
    head: JudgeHead | None
    _by_threshold: dict[float, VerificationRule] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Load the head and read the rule.

        Raises:
            JudgeDecodingError: one of them cannot be had, or cannot be had in vLLM.
        """
        head = None if settings.head is None else JudgeHead.from_pretrained(settings.head)
        rule = choose_rule(head, settings.rule, settings.threshold)
        if head is not None and not any(isinstance(part, Judge) for part in rule.parts):
            raise JudgeDecodingError(f"The rule {rule} reads no judge head and one is given; leave one of them out.")
        if not rule.joinable:
            raise JudgeDecodingError(
                f"The rule {rule} decides about a draft as a whole, which vLLM does by itself; give rejection_sample_"
                "method in --speculative-config instead."
            )
        if rule.needs_draft_hidden:
            raise JudgeDecodingError(
                "This judge head reads the draft model's hidden states too, which vLLM does not hand over; train one "
                "on the target alone."
            )
        return cls(settings, rule, head)

    def refusal(self, extra: Mapping[str, Any] | None, *, logprobs: bool, greedy: bool) -> str | None:
        """Why a request cannot be served as it asks, in one sentence; None if it can.

        ``extra`` are its ``extra_args``; ``logprobs``: it asks for log-probabilities; ``greedy``: at temperature 0.
        """
        try:
            rule = self.rule_for(extra, logprobs=False)
        except JudgeDecodingError as error:
            return str(error)
        if rule is None or rule.is_lossless:
            return None
        if logprobs:
            if self.settings.logprobs == "strict":
                return None
            return (
                f"Log-probabilities are asked for, but with {rule} some tokens are not the target's own; leave "
                f'logprobs out, or turn the judge off for this request with "{KEY}": "off".'
            )
        if not greedy and not all(isinstance(part, _WITHOUT_COINS) for part in rule.parts):
            return (
                f"The rule {rule} tosses coins of its own above temperature 0, which this engine cannot do; use "
                f'temperature 0, or turn it off for this request with "{KEY}": "off".'
            )
        if greedy and rule.needs_draft_probs:
            return (
                f"The rule {rule} compares the draft's probabilities with the target's, and vLLM's drafters have none "
                f'at temperature 0; use a higher one, or turn it off for this request with "{KEY}": "off".'
            )
        return None

    def rule_for(self, extra: Mapping[str, Any] | None, *, logprobs: bool) -> VerificationRule | None:
        """The rule of a request; None for standard verification.

        Raises:
            JudgeDecodingError: its ``extra_args`` say something about the judge that has no meaning.
        """
        if not extra or not (KEY in extra or THRESHOLD in extra):
            return None if logprobs else self.rule
        switch, threshold = extra.get(KEY, True), extra.get(THRESHOLD)
        if switch not in (*_OFF, *_ON):
            raise JudgeDecodingError(f'{KEY} is {switch!r}; it must be "on" or "off".')
        rule = self.rule if threshold is None else self._at(threshold)
        return None if logprobs or switch in _OFF else rule

    def _at(self, threshold: object) -> VerificationRule:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise JudgeDecodingError(f"{THRESHOLD} is {threshold!r}; it must be a number between 0 and 1.")
        check_threshold(threshold)
        if threshold not in self._by_threshold:
            parts = [Judge(p.head, threshold) if isinstance(p, Judge) else p for p in self.rule.parts]
            if parts == [*self.rule.parts]:
                raise JudgeDecodingError(
                    f"{THRESHOLD} is given, and the rule here, {self.rule}, has no judge; leave it out."
                )
            if len(self._by_threshold) >= _MANY:
                self._by_threshold.clear()
            self._by_threshold[float(threshold)] = parts[0] if len(parts) == 1 else AnyOf(*parts)
        return self._by_threshold[float(threshold)]
