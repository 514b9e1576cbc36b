"""The provenance of figures: machine, models, versions and command."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from judge_decoding.models.weights import adapters, tensors


def machine(device: torch.device | None = None) -> str:
    """Describe the machine briefly; ``device`` is the models' device, by default a GPU if there is one."""
    if torch.cuda.is_available() if device is None else device.type == "cuda":
        what, used = torch.cuda.get_device_name(device), ""
    else:
        what, used = f"{os.cpu_count()} {platform.machine()} cores", f", {torch.get_num_threads()} used"
    return f"{what}{used}, torch {torch.__version__}, transformers {version('transformers')}"


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a few values of each tensor, which distinguishes models saved under one name."""
    digest = hashlib.sha256(adapters(model).encode())
    for _, tensor in tensors(model):
        if not tensor.is_meta:  # not in memory
            digest.update(tensor.reshape(-1)[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages used in decoding."""
    found = {"python": platform.python_version()}
    for name in ("judge-decoding", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # running from a source tree that is not installed
            continue
    return found


def command() -> tuple[str, ...]:
    """Return the command line, as a shell takes it."""
    name = Path(sys.argv[0]).name
    return ("judge-decoding" if name == "main.py" else name, *sys.argv[1:])  # python -m judge_decoding.cli.main
