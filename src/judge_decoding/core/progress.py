"""How far a long task is."""

from __future__ import annotations

from collections.abc import Callable

StageProgress = Callable[[str, int, int], None]
"""Called with the name of the current stage, how much of it is done, and its total."""
