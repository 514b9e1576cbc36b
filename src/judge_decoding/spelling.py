"""Spellings of objects with their parameters, for the command line and files: ``judge(threshold=0.7) | top_k(k=4)``.

A spelling names a class. Its parameters are those of the constructor, annotated as int, float, bool or str.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from judge_decoding.errors import JudgeDecodingError

T = TypeVar("T")

_LONGEST = 10_000

Value = int | float | bool | str
"""The type of a parameter's value."""

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
    """A parameter of a spelling; ``default`` is None if it is required."""

    name: str
    type: type[Value]
    default: Value | None
    required: bool


def parameters(spelled: type[object], name: str, kind: str = "rule", given: Iterable[str] = ()) -> dict[str, Parameter]:
    """Return the parameters of a spelling by name, from the constructor of the class ``spelled``.

    ``name`` and ``kind`` are for messages; the caller supplies the parameters ``given``, outside the spelling.
    """
    try:
        hints = typing.get_type_hints(inspect.getattr_static(spelled, "__init__"))
    except (NameError, TypeError) as error:
        raise JudgeDecodingError(
            f"The {kind} {name} cannot be spelled: its annotations cannot be read ({error}); import what they name."
        ) from error
    found = {}
    for key, parameter in inspect.signature(spelled).parameters.items():
        if key in given:
            continue
        hint = hints.get(key)
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        options = typing.get_args(hint) if union else (hint,)
        choices = [choice for choice in _TYPES if choice in options]
        required = parameter.default is inspect.Parameter.empty
        if len(choices) == 1:
            found[key] = Parameter(key, choices[0], None if required else parameter.default, required)
        elif required and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise JudgeDecodingError(
                f"The {kind} {name} cannot be spelled: its parameter {key} is not annotated as int, float, bool or "
                "str; give it such an annotation or a default."
            )
    return found


def construct(spelled: type[T], name: str, tokens: Mapping[str, str], kind: str = "rule", **given: object) -> T:
    """Construct an object of the class ``spelled`` from the parameters in ``tokens`` and those ``given``."""
    known = parameters(spelled, name, kind, given)
    values = dict(given)
    for key, token in tokens.items():
        if key not in known:
            allowed = f"it has {listed(known)}" if known else "it has none"
            raise JudgeDecodingError(f"The {kind} {name} has no parameter {key[:40]}{guess(key, known)}; {allowed}.")
        values[key] = _value(name, known[key], token)
    missing = [key for key, parameter in known.items() if parameter.required and key not in values]
    if missing:
        raise JudgeDecodingError(f"The {kind} {name} needs {listed(missing)}; give it as in {name}({missing[0]}=...).")
    try:
        return spelled(**values)
    except JudgeDecodingError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:  # from another package
        raise JudgeDecodingError(f"The {kind} {name} rejects its parameters: {error}; change them.") from error


def read(spelling: str, kind: str = "rule", example: str = "top_k(k=4)") -> list[tuple[str, dict[str, str]]]:
    """Return the name and unconverted parameters of each part, separated by ``|``."""
    if len(spelling) > _LONGEST:
        raise JudgeDecodingError(f"The {kind} has {len(spelling)} characters; the most allowed is {_LONGEST:,}.")
    tokens = _tokens(spelling, kind, example)
    calls: list[tuple[str, dict[str, str]]] = []

    def take(*kinds: str) -> str:
        found_kind, token = tokens.pop(0)
        if (token if found_kind == "mark" else found_kind) not in kinds:
            found = f"there is {token!r}" if token else "it ends"
            wanted = " or ".join(_WORDS.get(each, f"'{each}'") for each in kinds)
            raise _unreadable(spelling, kind, example, f"{found} where {wanted} should be")
        return token

    while True:
        name, given = take("name"), dict[str, str]()
        mark = take("|", "(", "end")
        if mark == "(":
            key = take("name", ")")
            while key != ")":
                if key in given:
                    raise JudgeDecodingError(f"The {kind} {name[:40]} has {key[:40]} twice; give it once.")
                take("=")
                given[key] = take("name", "number", "text")
                key = ")" if take(",", ")") == ")" else take("name")
            mark = take("|", "end")
        calls.append((name, given))
        if not mark:
            return calls


_WORDS = {"name": "a name", "number": "a number", "text": "a text", "end": "its end"}


def _tokens(spelling: str, kind: str, example: str) -> list[tuple[str, str]]:
    """Return the kind and text of each token; the last is an end marker without text."""
    tokens, place = [], 0
    end = len(spelling.rstrip())
    while place < end:
        match = _TOKEN.match(spelling, place)
        if match is None:
            raise _unreadable(spelling, kind, example, f"{spelling[place:].lstrip()[0]!r} does not belong there")
        tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
        place = match.end()
    if not tokens:
        raise JudgeDecodingError(f"The {kind} is empty; write one as in {example!r}.")
    return [*tokens, ("end", "")]


def _unreadable(spelling: str, kind: str, example: str, why: str) -> JudgeDecodingError:
    shown = repr(spelling if len(spelling) <= 80 else spelling[:80] + "...")
    return JudgeDecodingError(f"The {kind} {shown} cannot be read: {why}; write it as in {example!r}.")


def _value(rule: str, parameter: Parameter, token: str) -> Value:
    if parameter.type is str and token[0] in "'\"":
        return token[1:-1]
    if parameter.type is str and token[0] not in "+-.0123456789":
        return token
    if parameter.type is bool and token in ("True", "False"):
        return token == "True"
    # Longer integers would overflow in a library, and have no sensible use.
    if parameter.type is int and re.fullmatch("[+-]?[0-9]{1,9}", token):
        return int(token)
    if parameter.type is float and token[0] in "+-.0123456789":
        return float(token)
    shown = token if len(token) <= 40 else token[:40] + "..."
    raise JudgeDecodingError(f"{rule}'s {parameter.name} is {shown}; it must be {_TYPES[parameter.type]}.")


def guess(name: str, known: Iterable[str]) -> str:
    """Return a question in parentheses that suggests the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name[:40], list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def listed(names: Iterable[str]) -> str:
    """Join one or more names for a sentence."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def spell(thing: object, name: str) -> str:
    """Return the spelling of an object that stores its constructor's parameters as attributes of the same names."""
    given = {key: getattr(thing, key, None) for key in inspect.signature(type(thing)).parameters}
    spelled = ", ".join(f"{k}={_spell(v)}" for k, v in given.items() if isinstance(v, int | float | str))
    return f"{name}({spelled})" if spelled else name


def _spell(value: Value) -> str:
    """Return the shortest spelling of a value that parses back to the same value."""
    if isinstance(value, str):
        quote = '"' if "'" in value else "'"  # not repr: quoted text is read verbatim, without escapes
        return value if value.isidentifier() and value not in ("True", "False") else f"{quote}{value}{quote}"
    short = f"{value:g}"
    return short if isinstance(value, float) and float(short) == value else repr(value)
