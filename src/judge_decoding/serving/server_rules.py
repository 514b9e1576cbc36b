"""The judge of a server and what a request may change: settings, rules and guards, independent of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from judge_decoding.decoding.choices import choose_rule
from judge_decoding.decoding.guards import Guard, parse_guards
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.base import AnyOf, VerificationRule
from judge_decoding.rules.judge import Judge, check_threshold

KEY = "judge"
"""Key in ``--additional-config``, and in a request's ``extra_args``, where it turns the judge off or on."""
THRESHOLD = "judge_threshold"
"""Key in a request's ``extra_args``: another threshold for the judge."""
GUARDS = "judge_guards"
"""Key in a request's ``extra_args``: guards instead of the server's, a list of spellings; empty for no guards."""
SPECULATION = "judge_speculation"
"""Key in a request's ``extra_args``: "off" disables speculative decoding, so that the target alone answers."""

_OFF, _ON = (False, 0, "off"), (True, 1, "on")
_MANY = 1000  # maximum number of cached thresholds; a client may send any number of them


class ServerSettings(BaseModel):
    """``{"judge": {...}}`` of ``--additional-config``.

    Give ``head`` and ``threshold``, or a ``rule`` in its spelling (with ``head`` if the rule has a judge). ``guards``
    restrict where tokens may be rescued, such as ``["strict_start(tokens=8)"]``. Requests for log-probabilities use
    standard verification (``logprobs`` "strict") or are refused ("refuse").
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    head: str | None = None
    threshold: float | None = None
    rule: str | None = None
    guards: tuple[str, ...] = Field(default=(), strict=False)
    logprobs: Literal["strict", "refuse"] = "strict"

    @classmethod
    def read(cls, given: object) -> Self:
        """Validate the settings given to the server."""
        if not isinstance(given, Mapping):
            raise JudgeDecodingError(
                f'"judge" in --additional-config is {given!r}; give a dictionary, as in '
                '{"judge": {"head": "HEAD"}}.'
            )
        try:
            settings = cls.model_validate(dict(given))
        except ValidationError as error:
            raise JudgeDecodingError(
                f'"judge" in --additional-config is invalid: {first_problem(error)}; its keys are '
                f"{', '.join(cls.model_fields)}."
            ) from error
        if settings.head is None and settings.rule is None:
            raise JudgeDecodingError('"judge" in --additional-config has neither a head nor a rule; give one.')
        return settings


@dataclass(frozen=True)
class ServerRules:
    """The rule of a server, and the rules of its requests derived from it."""

    settings: ServerSettings
    rule: VerificationRule
    head: JudgeHead | None
    guards: tuple[Guard, ...] = ()
    _by_threshold: dict[float, VerificationRule] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: ServerSettings) -> Self:
        """Load the head and read the rule."""
        head = None if settings.head is None else JudgeHead.from_pretrained(settings.head)
        rule = choose_rule(head, settings.rule, settings.threshold)
        if head is not None and not any(isinstance(part, Judge) for part in rule.parts):
            raise JudgeDecodingError(f"The rule {rule} reads no judge head and one is given; leave one of them out.")
        if not rule.joinable:
            raise JudgeDecodingError(
                f"The rule {rule} decides on a draft as a whole, which vLLM does by itself; give rejection_sample_"
                "method in --speculative-config instead."
            )
        if rule.needs_draft_hidden:
            raise JudgeDecodingError(
                "This judge head also reads the draft model's hidden states, which vLLM does not provide; train one "
                "on the target alone."
            )
        return cls(settings, rule, head, _guards(settings.guards, "guards"))

    def refusal(
        self, extra: Mapping[str, Any] | None, *, logprobs: bool, greedy: bool, unguarded: str | None = None
    ) -> str | None:
        """Return why a request with these ``extra_args`` cannot be served as it asks, in one sentence; None if it can.

        ``logprobs``: it asks for log-probabilities. ``unguarded``: the remedy if this server cannot apply guards.
        """
        try:
            rule, guards = self.rule_for(extra, logprobs=False), self.guards_for(extra)
        except JudgeDecodingError as error:
            return str(error)
        if guards and unguarded:
            return f"{GUARDS} is given, and this server cannot apply guards; {unguarded}, or leave it out."
        if rule is None or rule.is_lossless:
            return None
        if logprobs:
            if self.settings.logprobs == "strict":
                return None
            return (
                f"Log-probabilities are asked for, but with {rule} some tokens are not the target's own; leave "
                f'logprobs out, or turn the judge off for this request with "{KEY}": "off".'
            )
        if not greedy and not all(part.deterministic for part in rule.parts):
            return (
                f"The rule {rule} draws random numbers above temperature 0, which this engine cannot do; use "
                f'temperature 0, or turn it off for this request with "{KEY}": "off".'
            )
        if greedy and rule.needs_draft_probs:
            return (
                f"The rule {rule} compares the draft's probabilities with the target's, and vLLM's drafters have none "
                f'at temperature 0; use a higher one, or turn it off for this request with "{KEY}": "off".'
            )
        return None

    def rule_for(self, extra: Mapping[str, Any] | None, *, logprobs: bool) -> VerificationRule | None:
        """Return the rule of a request; None for standard verification."""
        if not speculates(extra):
            return None
        if not extra or not (KEY in extra or THRESHOLD in extra):
            return None if logprobs else self.rule
        switch, threshold = extra.get(KEY, True), extra.get(THRESHOLD)
        if switch not in (*_OFF, *_ON):
            raise JudgeDecodingError(f'{KEY} is {switch!r}; it must be "on" or "off".')
        rule = self.rule if threshold is None else self._at(threshold)
        return None if logprobs or switch in _OFF else rule

    def guards_for(self, extra: Mapping[str, Any] | None) -> tuple[Guard, ...]:
        """Return the guards of a request: its own, or else the server's."""
        if not extra or GUARDS not in extra:
            return self.guards
        return _guards(extra[GUARDS], GUARDS)

    def mark(self, extra: Mapping[str, Any] | None, rescued: int, *, logprobs: bool, greedy: bool) -> dict[str, Any]:
        """Return how an answer was verified, so that users can avoid training on lossy answers.

        ``lossy`` is whether lossy verification may have changed it: at temperature 0 an answer without ``rescued``
        tokens is the target's own; above 0, any answer under a lossy rule is lossy.
        """
        rule = self.rule_for(extra, logprobs=logprobs)
        strict = rule is None or rule.is_lossless
        return {"lossy": rescued > 0 or not (strict or greedy), "rescued_tokens": rescued}

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


def speculates(extra: Mapping[str, Any] | None) -> bool:
    """Whether a request uses speculative decoding; it does unless its ``extra_args`` turn it off."""
    switch = (extra or {}).get(SPECULATION, True)
    if switch not in (*_OFF, *_ON):
        raise JudgeDecodingError(f'{SPECULATION} is {switch!r}; it must be "on" or "off".')
    return switch not in _OFF


def _guards(given: object, name: str) -> tuple[Guard, ...]:
    spellings = [given] if isinstance(given, str) else given
    if not isinstance(spellings, Sequence) or not all(isinstance(one, str) for one in spellings):
        raise JudgeDecodingError(f'{name} is {given!r}; give a list of guards, such as ["strict_start(tokens=8)"].')
    return _parsed(tuple(spellings))


_parsed = lru_cache(_MANY)(parse_guards)  # a request names its guards again in every round
