"""Classes by name: this package's own, and those that installed packages register in an entry-point group."""

from __future__ import annotations

from collections.abc import Container, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.spelling import guess

T = TypeVar("T")


def installed(group: str, taken: Container[str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, without this package's own names, ``taken``."""
    return {entry.name: entry for entry in entry_points(group=group) if entry.name not in taken}


def description_of(entry: EntryPoint, kind: str) -> str:
    """Describe an entry point in messages: "The rule NAME of the package PACKAGE"."""
    return f"The {kind} {entry.name} of the package {entry.dist.name if entry.dist else entry.value}"


def imported(entry: EntryPoint, kind: str) -> Any:  # noqa: ANN401  (whatever is there; the caller checks it)
    """Import the object that an entry point names."""
    try:
        return entry.load()
    except Exception as error:  # the import runs another package's code
        raise JudgeDecodingError(
            f"{description_of(entry, kind)} cannot be imported ({type(error).__name__}: {error}); repair or remove "
            "that package."
        ) from error


class Registry(Generic[T]):
    """The classes of one kind, subclasses of ``base``, by their attribute ``name``.

    Plugins cannot reuse the names of those ``built_in``, and are imported only when requested.
    """

    def __init__(self, kind: str, base: type[object], built_in: Mapping[str, type[T]]) -> None:
        self._kind, self._base, self._built_in = kind, base, built_in

    def all(self) -> dict[str, type[T]]:
        """Return all classes: this package's, then those of installed packages."""
        return {**self._built_in, **{name: self._load(entry) for name, entry in self._foreign().items()}}

    def names(self) -> list[str]:
        """Return the names only; nothing is imported."""
        return [*self._built_in, *self._foreign()]

    def find(self, name: str) -> type[T]:
        """Return the class with this name."""
        if name in self._built_in:
            return self._built_in[name]
        if (entry := self._foreign().get(name)) is not None:
            return self._load(entry)
        names = self.names()
        raise JudgeDecodingError(
            f"There is no {self._kind} {name[:40]}{guess(name, names)}; the {self._kind}s are {', '.join(names)}."
        )

    def _foreign(self) -> dict[str, EntryPoint]:
        return installed(f"judge_decoding.{self._kind}s", self._built_in)

    def _load(self, entry: EntryPoint) -> type[T]:
        found = imported(entry, self._kind)
        if not (isinstance(found, type) and issubclass(found, self._base) and getattr(found, "name", "") == entry.name):
            raise JudgeDecodingError(
                f"{description_of(entry, self._kind)} is not a {self._base.__name__} of that name; repair or remove "
                "that package."
            )
        return cast("type[T]", found)
