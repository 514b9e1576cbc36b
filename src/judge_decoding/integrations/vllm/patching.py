"""Wrap vLLM's functions, after comparing their signatures with those of a known version."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.vllm.versions import VERSIONS

Hook = Callable[..., Any]
"""Called instead of a vLLM function, with the original function as the first argument."""


def install(hooks: Mapping[str, Hook]) -> None:
    """Wrap the functions named in ``hooks``, once per process."""
    import vllm  # noqa: PLC0415  (an extra)

    known = VERSIONS.get(".".join(vllm.__version__.split(".")[:2]))
    if known is None:
        raise _unknown(f"this is {vllm.__version__}")
    for symbol in hooks:
        found = tuple(inspect.signature(look_up(symbol)).parameters)
        if found != known.signatures[symbol]:
            raise _unknown(f"{symbol} takes {', '.join(found)}")
    for symbol, methods in known.abstract.items():
        if (found := tuple(sorted(look_up(symbol).__abstractmethods__))) != methods:
            raise _unknown(f"{symbol} has the abstract methods {', '.join(found)}")
    for symbol, hook in hooks.items():
        wrap(symbol, hook)


def wrap(symbol: str, hook: Hook) -> None:
    """Call ``hook`` instead of the function ``symbol``, such as ``module:Class.method``; a second call does nothing.

    Raises ImportError or AttributeError if there is no such function.
    """
    holder, name = _holder(symbol)
    original = getattr(holder, name)
    if getattr(original, "judge_decoding", False):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    wrapped.judge_decoding = True  # type: ignore[attr-defined]
    setattr(holder, name, wrapped)


def look_up(symbol: str) -> Any:
    """Look up ``symbol``, such as ``module:Class.method``, in the installed vLLM."""
    try:
        holder, name = _holder(symbol)
        return getattr(holder, name)
    except (ImportError, AttributeError) as error:
        raise _unknown(f"it has no {symbol}") from error


def _holder(symbol: str) -> tuple[Any, str]:
    """Return the object that holds the function, and the function's name in it."""
    module, _, path = symbol.partition(":")
    holder: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    return holder, name


def _unknown(why: str) -> JudgeDecodingError:
    return JudgeDecodingError(
        f"judge-decoding's plugin is for vLLM {' and '.join(VERSIONS)}, and {why}; install such a version, or "
        'another of judge-decoding, or leave "judge" out of --additional-config.'
    )
