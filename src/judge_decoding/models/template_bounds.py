"""Test-render an untrusted chat template within bounds before transformers renders it.

Jinja's sandbox isolates a template, but one expression may build 100,000,000,000 characters, and loops may run for
ever. So the template is rendered here first, with a budget for every operation that makes something larger, every loop
item and every call. The output is discarded: transformers renders the real one.
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
"""Characters, items and calls, in addition to the size of the messages."""
_PER_LETTER = 100

_GROWING = frozenset(
    "batch center expandtabs format generate_lorem_ipsum indent join ljust replace rjust slice to_bytes translate "
    "wordwrap zfill".split()
)
"""Methods, filters and functions whose output may be much larger than their input."""
_WIDTH = re.compile(r"(%(\(\w*\))?[-#0 +]*|\{[^{}]*)[\d.]{6}")
_WIDTH_ELSEWHERE = re.compile(r"\*|\{[^{}]*\{")

_left: ContextVar[list[int]] = ContextVar("_left")


class BoundsError(Exception):
    """A template exceeds its budget."""


def check_bounds(template: str, messages: Sequence[Mapping[str, Any]], **variables: object) -> None:
    """Render a chat template within its budget, or raise `BoundsError`.

    Its other errors are raised when transformers renders it.
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
        raise _without_end()


def _without_end() -> BoundsError:
    return BoundsError("it writes or counts without end")


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1


def _amount(value: object) -> int:
    """Return the largest repetition or width that an argument can cause."""
    return max(abs(value) if isinstance(value, int) else _size(value), 1)


def _pay_growth(name: str, given: list[Any]) -> None:
    texts = [value for value in given if isinstance(value, str)]
    if name == "replace" and len(texts) == 3:
        given = [texts[2], len(texts[0]) // max(len(texts[1]), 1) + 1]
    if name in ("format", "%") and texts:
        if _WIDTH.search(texts[0]):
            raise BoundsError("it asks for very wide text")
        if not _WIDTH_ELSEWHERE.search(texts[0]):
            given = [value for value in given if not isinstance(value, int)]
    # At most, one argument is inserted as often as another specifies: a width, a separator.
    *_, less, most = sorted([1, 1, *map(_amount, given)])
    _pay(less * most)
    for value in given:
        if isinstance(value, list | tuple | dict):
            _pay(sum(map(_size, value.values() if isinstance(value, dict) else value)))


class _Bounded(ImmutableSandboxedEnvironment):
    """Jinja with a budget, and with the functions that transformers provides to chat templates."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _tojson
        self.filters = {name: _paid(name, function) for name, function in self.filters.items()}
        self.filters |= {"_items": _items, "_joined": _joined}
        self.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of macros and blocks."""
        return _joined(parts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Route loops and ``~`` through filters, as they cannot be intercepted."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_items", [], [], None, None, lineno=loop.lineno)
        for concat in list(tree.find_all(nodes.Concat)):
            parts = nodes.List(concat.nodes, lineno=concat.lineno)
            concat.nodes = [nodes.Filter(parts, "_joined", [], [], None, None, lineno=concat.lineno)]
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Pay for an operation, then run it."""
        if isinstance(left, str) and operator == "%":
            _pay_growth(operator, [left, *(right if isinstance(right, tuple) else [right])])
        elif isinstance(left, int) and isinstance(right, int):
            _pay(left.bit_length() * (abs(right) if operator == "**" else 1))
        else:
            _pay(_amount(left) * _amount(right) if operator == "*" else _size(left) + _size(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N805
        """Pay for a call, then make it; jinja's parameter names leave all others to the template."""
        _pay(1)
        name = getattr(__obj, "__name__", "")
        if name in _GROWING:
            bound = getattr(__obj, "__wrapped__", __obj)  # str.format is wrapped by the sandbox
            _pay_growth(name, [getattr(bound, "__self__", None), *args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        _pay(_size(result))
        return result


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (a template's)
        if name in _GROWING:
            _pay_growth(name, [*args, *kwargs.values()])
        result = function(*args, **kwargs)
        _pay(_size(result))
        return result

    return paid


def _items(items: Iterable[Any]) -> Iterator[Any]:
    left = _left.get()
    for item in items:
        left[0] -= 1  # not `_pay`: a hostile template runs through here millions of times before it is refused
        if left[0] < 0:
            raise _without_end()
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
    """The block around the assistant's text; it renders as its content."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the content of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(8)
def _compiled(template: str) -> Template:
    return _Bounded().from_string(template)
