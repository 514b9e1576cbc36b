"""Rules by name, such as ``judge(threshold=0.7) | top_k(k=4)``, and rules from other packages.

A package registers a rule under the entry-point group ``judge_decoding.rules``: a name, and a subclass of
`VerificationRule` with that ``name``. The parameters in the spelling are those of the constructor, which are annotated
as int, float, bool or str; a constructor parameter called ``head`` receives the judge head.
"""

from __future__ import annotations

import inspect
from typing import Any

from judge_decoding import spelling as spellings
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.plugins import Registry
from judge_decoding.rules.base import AnyOf, VerificationRule, check_is_rule
from judge_decoding.rules.divergence import Fuzzy, KLJudge
from judge_decoding.rules.exact import Block, Exact
from judge_decoding.rules.judge import Judge
from judge_decoding.rules.likelihood import (
    EntropyGate,
    MarginRatio,
    MinProbability,
    Relaxed,
    RunningSurprise,
    TopK,
    Typical,
)
from judge_decoding.rules.mixture import Cascade, Ensemble
from judge_decoding.rules.ratio import Lenience, Mentored, MentoredSimple
from judge_decoding.spelling import Parameter, construct

EXAMPLE = "judge(threshold=0.7) | top_k(k=4)"

_BUILT_IN: dict[str, type[VerificationRule]] = {
    rule.name: rule
    for rule in (
        Exact, Block, Judge, TopK, MinProbability, MarginRatio, Relaxed, Typical, RunningSurprise, EntropyGate,
        Lenience, MentoredSimple, Mentored, Ensemble, Cascade, Fuzzy, KLJudge,
    )
}  # fmt: skip
_RULES = Registry("rule", VerificationRule, _BUILT_IN)


def available_rules() -> dict[str, type[VerificationRule]]:
    """Return all rules by name: this package's, then those of installed packages.

    Raises:
        JudgeDecodingError: an installed package's rule cannot be imported or is not a verification rule.
    """
    return _RULES.all()


def parameters(rule: type[VerificationRule]) -> dict[str, Parameter]:
    """Return the parameters of a rule's spelling by name, from its constructor."""
    return spellings.parameters(rule, rule.name, given=("head",))


def described(rule: type[VerificationRule]) -> dict[str, Any]:
    """Return a rule's name, summary, parameters and needs as plain JSON values."""
    known = parameters(rule)
    head = "head" in inspect.signature(rule).parameters
    return {
        "name": rule.name,
        "summary": (inspect.getdoc(rule) or "").partition("\n")[0],
        "parameters": {key: parameter.default for key, parameter in known.items()},
        "required": [key for key, parameter in known.items() if parameter.required],
        "types": {key: parameter.type.__name__ for key, parameter in known.items()},
        "strict": None if rule.STRICT is None else dict(rule.STRICT),
        "lossless": rule.lossless,
        "needs": [
            *(["judge head"] if head else []),
            *(["draft probabilities"] if rule.needs_draft_probs else []),
            *(["hidden states"] if rule.norm else []),
            *(["draft hidden states"] if rule.needs_draft_hidden else []),
        ],
    }


def parse_rule(spelling: str, head: JudgeHead | None = None) -> VerificationRule:
    """Parse a rule's spelling, such as ``judge(threshold=0.7) | top_k(k=4)``.

    Args:
        spelling: names joined by ``|``, each with its parameters in parentheses; parameters with a default can be left
            out. ``str(rule)`` gives the spelling of a rule.
        head: the judge head, for rules that need one.

    Raises:
        JudgeDecodingError: the spelling cannot be parsed, a rule or parameter is unknown, a value has the wrong type or
            is out of range, a rule needs a head and there is none, or the rules cannot be joined.
    """
    if not spelling.strip():
        raise JudgeDecodingError(f"The rule is empty; give one of {', '.join(_RULES.names())}.")
    rules = [_build(name, given, head) for name, given in spellings.read(spelling, "rule", EXAMPLE)]
    return rules[0] if len(rules) == 1 else AnyOf(*rules)


def as_rule(rule: VerificationRule | str, head: JudgeHead | None = None) -> VerificationRule:
    """Return ``rule`` as a `VerificationRule`; it may be given by its spelling."""
    if isinstance(rule, str):
        return parse_rule(rule, head)
    return check_is_rule(rule)


def _build(name: str, given: dict[str, str], head: JudgeHead | None) -> VerificationRule:
    rule = _RULES.find(name)
    if "head" not in inspect.signature(rule).parameters:
        return construct(rule, name, given)
    if head is None:
        raise JudgeDecodingError(
            f"The rule {name} needs a judge head and there is none; give one (on the command line, --judge)."
        )
    return construct(rule, name, given, head=head)
