"""Rules by name: ``judge(threshold=0.7) | top_k(k=4)``, and packages that bring rules of their own.

A package registers a rule under the entry-point group ``judge_decoding.rules``: a name, and a subclass of
`VerificationRule` with that ``name``. The parameters in the spelling are those of the constructor, which are annotated
as int, float, bool or str; a constructor parameter called ``head`` receives the judge head.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.base import AnyOf, Value, VerificationRule
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

GROUP = "judge_decoding.rules"
"""The entry-point group of rules."""

EXAMPLE = "judge(threshold=0.7) | top_k(k=4)"

_BUILT_IN: dict[str, type[VerificationRule]] = {
    rule.name: rule
    for rule in (
        Exact, Block, Judge, TopK, MinProbability, MarginRatio, Relaxed, Typical, RunningSurprise, EntropyGate,
        Lenience, MentoredSimple, Mentored, Ensemble, Cascade, Fuzzy, KLJudge,
    )
}  # fmt: skip

_TYPES: dict[type[Value], str] = {
    int: "a whole number of at most 9 digits",
    float: "a number",
    bool: "True or False",
    str: "a word, or text in quotes",
}

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<name>[A-Za-z_][A-Za-z0-9_-]*)
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]))
    |(?P<text>'[^']*'|"[^"]*")
    |(?P<mark>[|(),=])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a rule's spelling; ``default`` is None where one must be given or the head has it."""

    name: str
    type: type[Value]
    default: Value | None
    required: bool


def available_rules() -> dict[str, type[VerificationRule]]:
    """All rules by name: this package's, then those of installed packages.

    Raises:
        JudgeDecodingError: an installed package's rule cannot be imported or is none.
    """
    return {**_BUILT_IN, **{name: _load(entry) for name, entry in _foreign().items()}}


def parameters(rule: type[VerificationRule]) -> dict[str, Parameter]:
    """The parameters of a rule's spelling by name, from its constructor.

    Raises:
        JudgeDecodingError: the constructor wants something that can be neither spelled nor given.
    """
    try:
        hints = typing.get_type_hints(rule.__init__)
    except (NameError, TypeError) as error:
        raise JudgeDecodingError(
            f"The rule {rule.name} cannot be spelled: its annotations cannot be read ({error}); import what they name."
        ) from error
    found = {}
    for name, parameter in inspect.signature(rule).parameters.items():
        if name == "head":
            continue
        hint = hints.get(name)
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        options = typing.get_args(hint) if union else (hint,)
        kinds = [kind for kind in _TYPES if kind in options]
        required = parameter.default is inspect.Parameter.empty
        if len(kinds) == 1:
            found[name] = Parameter(name, kinds[0], None if required else parameter.default, required)
        elif required and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise JudgeDecodingError(
                f"The rule {rule.name} cannot be spelled: its parameter {name} is not annotated as int, float, bool or "
                "str; give it such an annotation or a default."
            )
    return found


def parse_rule(spelling: str, head: JudgeHead | None = None) -> VerificationRule:
    """The rule that ``spelling`` means, such as ``judge(threshold=0.7) | top_k(k=4)``.

    Args:
        spelling: names joined by ``|``, each with its parameters in parentheses; what has a default can be left out.
            ``str(rule)`` gives the spelling of a rule.
        head: the judge head, for rules that need one.

    Raises:
        JudgeDecodingError: it cannot be read, an unknown rule or parameter, a value of the wrong kind or out of range,
            a rule that needs a head without one, or rules that cannot be joined.
    """
    rules = [_build(name, given, head) for name, given in _read(spelling)]
    return rules[0] if len(rules) == 1 else AnyOf(*rules)


def _read(spelling: str) -> list[tuple[str, dict[str, str]]]:
    """Names and unconverted parameters of each joined rule."""
    tokens = _tokens(spelling)
    calls: list[tuple[str, dict[str, str]]] = []

    def take(*kinds: str) -> str:
        kind, token = tokens.pop(0)
        if (token if kind == "mark" else kind) not in kinds:
            found = f"there is {token!r}" if token else "it ends"
            wanted = " or ".join(_WORDS.get(kind, f"'{kind}'") for kind in kinds)
            raise _unreadable(spelling, f"{found} where {wanted} should be")
        return token

    while True:
        name, given = take("name"), dict[str, str]()
        mark = take("|", "(", "end")
        if mark == "(":
            key = take("name", ")")
            while key != ")":
                if key in given:
                    raise JudgeDecodingError(f"The rule {name[:40]} has {key[:40]} twice; give it once.")
                take("=")
                given[key] = take("name", "number", "text")
                key = ")" if take(",", ")") == ")" else take("name")
            mark = take("|", "end")
        calls.append((name, given))
        if not mark:
            return calls


_WORDS = {"name": "a name", "number": "a number", "text": "a text", "end": "its end"}


def _tokens(spelling: str) -> list[tuple[str, str]]:
    """Kind and text of each token; the last is the end, with no text."""
    tokens, place = [], 0
    end = len(spelling.rstrip())
    while place < end:
        match = _TOKEN.match(spelling, place)
        if match is None:
            raise _unreadable(spelling, f"{spelling[place:].lstrip()[0]!r} has no place in it")
        tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
        place = match.end()
    if not tokens:
        raise JudgeDecodingError(f"The rule is empty; name one of {', '.join(_names())}.")
    return [*tokens, ("end", "")]


def _unreadable(spelling: str, why: str) -> JudgeDecodingError:
    shown = repr(spelling if len(spelling) <= 80 else spelling[:80] + "...")
    return JudgeDecodingError(f"The rule {shown} cannot be read: {why}; write it as in {EXAMPLE!r}.")


def _build(name: str, given: dict[str, str], head: JudgeHead | None) -> VerificationRule:
    rule = _find(name)
    known = parameters(rule)
    values: dict[str, object] = {}
    for key, token in given.items():
        if key not in known:
            allowed = f"it has {_listed(known)}" if known else "it has none"
            raise JudgeDecodingError(f"The rule {name} has no parameter {key[:40]}{_guess(key, known)}; {allowed}.")
        values[key] = _value(name, known[key], token)
    missing = [key for key, parameter in known.items() if parameter.required and key not in values]
    if missing:
        raise JudgeDecodingError(f"The rule {name} needs {_listed(missing)}; give it as in {name}({missing[0]}=...).")
    if "head" in inspect.signature(rule).parameters:
        if head is None:
            raise JudgeDecodingError(
                f"The rule {name} needs a judge head and there is none; give one (on the command line, --judge)."
            )
        values["head"] = head
    try:
        return rule(**values)
    except JudgeDecodingError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:  # from a rule of another package
        raise JudgeDecodingError(f"The rule {name} refuses its parameters: {error}; change them.") from error


def _value(rule: str, parameter: Parameter, token: str) -> Value:
    """A parameter's value from its token."""
    if parameter.type is str and token[0] in "'\"":
        return token[1:-1]
    if parameter.type is str and token[0] not in "+-.0123456789":
        return token
    if parameter.type is bool and token in ("True", "False"):
        return token == "True"
    # Longer whole numbers than this overflow somewhere below, and none is meant.
    if parameter.type is int and re.fullmatch("[+-]?[0-9]{1,9}", token):
        return int(token)
    if parameter.type is float and token[0] in "+-.0123456789":
        return float(token)
    shown = token if len(token) <= 40 else token[:40] + "..."
    raise JudgeDecodingError(f"{rule}'s {parameter.name} is {shown}; it must be {_TYPES[parameter.type]}.")


def _find(name: str) -> type[VerificationRule]:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    foreign = _foreign()
    if name in foreign:
        return _load(foreign[name])
    names = _names()
    raise JudgeDecodingError(f"There is no rule {name[:40]}{_guess(name, names)}; the rules are {', '.join(names)}.")


def _names() -> list[str]:
    return [*_BUILT_IN, *_foreign()]


def _foreign() -> dict[str, EntryPoint]:
    """The rules of installed packages; this package's own names are taken."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in _BUILT_IN}


def _load(entry: EntryPoint) -> type[VerificationRule]:
    package = entry.dist.name if entry.dist else entry.value
    try:
        rule = entry.load()
    except Exception as error:  # the import runs another package's code
        raise JudgeDecodingError(
            f"The rule {entry.name} of the package {package} cannot be imported ({type(error).__name__}: {error}); "
            "repair or remove that package."
        ) from error
    if not (isinstance(rule, type) and issubclass(rule, VerificationRule) and rule.name == entry.name):
        raise JudgeDecodingError(
            f"The rule {entry.name} of the package {package} is no VerificationRule of that name; "
            "repair or remove that package."
        )
    return rule


def _guess(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:40], list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
