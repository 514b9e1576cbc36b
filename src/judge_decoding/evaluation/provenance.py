"""What a reader of figures must know of how they came about."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> str:
    """The machine in a few words."""
    import torch

    what = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} {platform.machine()} cores"
    used = "" if torch.cuda.is_available() else f", {torch.get_num_threads()} used"
    return f"{what}{used}, torch {torch.__version__}"


def versions() -> dict[str, str]:
    """Versions of what decodes."""
    found = {"python": platform.python_version()}
    for name in ("judge-decoding", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            continue
    return found


def command() -> tuple[str, ...]:
    """The command line."""
    return (Path(sys.argv[0]).name, *sys.argv[1:])
