"""A chat template is tried within bounds before it is rendered, as it comes from strangers.

Jinja's sandbox lets a template reach nothing, but it may build 100,000,000,000 letters in one expression, or count in
loops without end. So it is rendered here first, where all that makes something larger, every item of a loop and every
call is paid from a budget. What it says here is thrown away: transformers renders what counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

BUDGET = 3_000_000
"""Letters, items and calls, besides what the messages are worth."""
_PER_LETTER = 100

_GROWING = frozenset(
    "batch center expandtabs format generate_lorem_ipsum indent join ljust replace rjust slice to_bytes translate "
    "wordwrap zfill".split()
)
"""Methods, filters and functions that may give much more than they are given."""
_WIDTH = re.compile(r"(%(\(\w*\))?[-#0 +]*|\{[^{}]*)[\d.]{6}")
_WIDTH_ELSEWHERE = re.compile(r"\*|\{[^{}]*\{")

_left: ContextVar[list[int]] = ContextVar("_left")


class BoundsError(Exception):
    """A template takes more than it may."""


def check_bounds(template: str, messages: Sequence[Mapping[str, Any]], **variables: object) -> None:
    """Render a chat template as far as its budget goes.

    Raises:
        BoundsError: it takes more than it may. What else is wrong with it shows when it is rendered.
    """
    plain = json.dumps(messages, default=str)
    before = _left.set([BUDGET + _PER_LETTER * len(plain)])
    try:
        for piece in _compiled(template).generate(messages=json.loads(plain), **variables):
            _pay(len(piece) + 1)
    except BoundsError:
        raise
    except MemoryError as error:
        raise BoundsError("it takes more memory than there is") from error
    except Exception:  # noqa: BLE001  (a template of a stranger)
        return
    finally:
        _left.reset(before)


def _pay(cost: int) -> None:
    left = _left.get()
    left[0] -= cost
    if left[0] < 0:
        raise BoundsError("it writes or counts without end")


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1


def _amount(value: object) -> int:
    """How often, or how wide, an argument can make a result."""
    return max(abs(value) if isinstance(value, int) else _size(value), 1)


def _pay_growth(name: str, given: list[Any]) -> None:
    """Pay for what a function makes of its arguments, before it is made."""
    texts = [value for value in given if isinstance(value, str)]
    if name == "replace" and len(texts) == 3:
        given = [texts[2], len(texts[0]) // max(len(texts[1]), 1) + 1]
    if name in ("format", "%") and texts:
        if _WIDTH.search(texts[0]):
            raise BoundsError("it asks for very wide text")
        if not _WIDTH_ELSEWHERE.search(texts[0]):
            given = [value for value in given if not isinstance(value, int)]
    # One is put in as often as another says at most: a width, a separator.
    *_, less, most = sorted([1, 1, *map(_amount, given)])
    _pay(less * most)
    for value in given:
        if isinstance(value, list | tuple | dict):
            _pay(sum(map(_size, value.values() if isinstance(value, dict) else value)))


class _Bounded(ImmutableSandboxedEnvironment):
    """Jinja with a budget, and with what transformers gives to chat templates."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _tojson
        self.filters = {name: _paid(name, function) for name, function in self.filters.items()}
        self.filters |= {"_items": _items, "_joined": _joined}
        self.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}

    def concat(self, parts: Iterable[str]) -> str:
        """What macros and blocks write."""
        return _joined(parts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Loops and ``~`` cannot be intercepted: they go through filters."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_items", [], [], None, None, lineno=loop.lineno)
        for concat in list(tree.find_all(nodes.Concat)):
            parts = nodes.List(concat.nodes, lineno=concat.lineno)
            concat.nodes = [nodes.Filter(parts, "_joined", [], [], None, None, lineno=concat.lineno)]
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """An operation, paid for before it is done."""
        if isinstance(left, str) and operator == "%":
            _pay_growth(operator, [left, *(right if isinstance(right, tuple) else [right])])
        elif isinstance(left, int) and isinstance(right, int):
            _pay(left.bit_length() * (abs(right) if operator == "**" else 1))
        else:
            _pay(_amount(left) * _amount(right) if operator == "*" else _size(left) + _size(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N805
        """A call, with jinja's own names, as a template may give any."""
        _pay(1)
        name = getattr(__obj, "__name__", "")
        if name in _GROWING:
            bound = getattr(__obj, "__wrapped__", __obj)  # str.format is wrapped by the sandbox
            _pay_growth(name, [getattr(bound, "__self__", None), *args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        _pay(_size(result))
        return result


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for."""

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (a template's)
        if name in _GROWING:
            _pay_growth(name, [*args, *kwargs.values()])
        result = function(*args, **kwargs)
        _pay(_size(result))
        return result

    return paid


def _items(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _pay(1)
        yield item


def _joined(parts: Iterable[Any]) -> str:
    texts = list(map(str, parts))
    _pay(sum(map(len, texts)))
    return "".join(texts)


def _tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: ANN401
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


class _Generation(Extension):
    """The block around what the assistant says, which is what is in it."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is in the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(8)
def _compiled(template: str) -> Template:
    return _Bounded().from_string(template)
