"""What a reader of figures must know of how they came about."""

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
    """The machine in a few words; ``device`` is where the models are, by default a GPU if there is one."""
    if torch.cuda.is_available() if device is None else device.type == "cuda":
        what, used = torch.cuda.get_device_name(device), ""
    else:
        what, used = f"{os.cpu_count()} {platform.machine()} cores", f", {torch.get_num_threads()} used"
    return f"{what}{used}, torch {torch.__version__}"


def fingerprint(model: nn.Module) -> str:
    """Tells models apart that were saved under one name: SHA-256 of a few numbers of each of their tensors."""
    digest = hashlib.sha256(adapters(model).encode())
    for _, tensor in tensors(model):
        if not tensor.is_meta:  # not in memory
            digest.update(tensor.reshape(-1)[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()


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
