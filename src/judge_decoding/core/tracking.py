"""Log metrics with trackio or wandb, where one is installed; nothing is logged unless it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from judge_decoding.errors import JudgeDecodingError

TRACKERS = ("trackio", "wandb")
PROJECT = "judge-decoding"


class Logger(Protocol):
    """Receives metrics, as `log_to` provides it; anything with this method will do."""

    def log(self, metrics: Mapping[str, float], /, *, step: int | None = None) -> None:
        """Log values by name.

        Args:
            metrics: the values, such as ``{"draft/loss": 1.2}``.
            step: where they belong on the horizontal axis; None for the next place.
        """


class _Tracker:
    """A run of a tracker; both have the interface of wandb."""

    def __init__(self, tracker: Any) -> None:  # noqa: ANN401  (a module that may not be installed)
        self._tracker = tracker

    def log(self, metrics: Mapping[str, float], /, *, step: int | None = None) -> None:
        """Log values by name."""
        self._tracker.log(dict(metrics), step=step)


def check_tracker(name: str | None) -> None:
    """Check that a tracker exists and is installed; it is not imported."""
    if name is None:
        return
    if name not in TRACKERS:
        raise JudgeDecodingError(f"Metrics cannot be logged to {name}; give {' or '.join(TRACKERS)}.")
    if find_spec(name) is None:
        raise JudgeDecodingError(f"{name} is not installed; install it with: pip install {name}.")


@contextmanager
def log_to(tracker: str | None, run: str, settings: Mapping[str, Any] | None = None) -> Iterator[Logger | None]:
    """Start a run of a tracker for the block, and finish it at its end, whatever happens in it.

    trackio keeps runs on this machine; wandb does what its own settings say (``WANDB_MODE=offline`` keeps them here).

    Args:
        tracker: "trackio" or "wandb"; None for none, which yields None.
        run: name of the run, in the project "judge-decoding".
        settings: what the run is about.

    Raises:
        JudgeDecodingError: the tracker is unknown, not installed, or cannot start.
    """
    check_tracker(tracker)
    if tracker is None:
        yield None
        return
    try:
        module = importlib.import_module(tracker)
        module.init(project=PROJECT, name=run, config=dict(settings or {}))
    except Exception as error:  # another package's code
        raise JudgeDecodingError(
            f"{tracker} does not start ({type(error).__name__}: {error}); repair it, or leave it out."
        ) from error
    try:
        yield _Tracker(module)
    finally:
        module.finish()


def log_fields(logger: Logger | None, prefix: str, fields: Mapping[str, object], *, step: int | None = None) -> None:
    """Log the numbers among ``fields``, each under ``prefix/name``; nothing without a logger."""
    numbers = {
        f"{prefix}/{name}": value
        for name, value in fields.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if logger is not None and numbers:
        logger.log(numbers, step=step)
