"""What a head's files say of it, read without torch; what is unusual about them is left to the full check."""

from __future__ import annotations

import json as json_module
import math
import struct
from array import array
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say_json
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import parse_json, read_bytes, read_text
from judge_decoding.judge.files import CONFIG, WEIGHTS

FIELDS: dict[str, type | tuple[type, ...]] = {
    "model_type": str, "version": int, "target": dict, "draft": (dict, type(None)), "layer": int, "norm": str,
    "polarity": str, "threshold": float, "labels": str, "num_draft_tokens": (int, type(None)), "data": dict,
    "calibration": dict, "familiarity": (dict, type(None)), "versions": dict,
}  # fmt: skip
_MODEL = {"name_or_path": str, "architecture": str, "hidden_size": int, "num_hidden_layers": int}
_ALLOWED = {"model_type": ("judge_head",), "version": (1,), "norm": ("before", "after"), "polarity": ("correct",)}


def head_facts(folder: Path) -> dict[str, Any] | None:
    """The configuration of a head in a folder if it and the weights are what `JudgeHead` writes, else None."""
    with suppress(JudgeDecodingError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        found = parse_json(read_text(folder / CONFIG, "the judge head's configuration"))
        if found.keys() != FIELDS.keys() or not all(isinstance(found[name], kind) for name, kind in FIELDS.items()):
            return None
        models = [one for one in (found["target"], found["draft"]) if one is not None]
        if not all(isinstance(one[name], kind) for one in models for name, kind in _MODEL.items()):
            return None
        good = (
            all(found[name] in allowed for name, allowed in _ALLOWED.items())
            and 0 <= found["threshold"] <= 1
            and -found["target"]["num_hidden_layers"] <= found["layer"] <= -1
            and (found["layer"] == -1 or found["norm"] == "before")
            and (found["familiarity"] is None or found["familiarity"]["questions"] > 0)
            and (found["num_draft_tokens"] is None or found["num_draft_tokens"] > 0)
        )
        if good and _sound(folder / WEIGHTS, sum(one["hidden_size"] for one in models), found["familiarity"]):
            return dict(found)
    return None


def _sound(path: Path, size: int, familiarity: Mapping[str, Any] | None) -> bool:
    """Whether the weights (safetensors) have the right shapes, and are finite."""
    data = read_bytes(path, "the judge head's weights")
    (length,) = struct.unpack("<Q", data[:8])
    header = json_module.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    shapes = {name: tuple(one["shape"]) for name, one in header.items()}
    linear = {"linear.weight": (1, size), "linear.bias": (1,)}
    rest = {name for name in shapes if name.startswith("familiarity.")}
    if {name: shape for name, shape in shapes.items() if name not in rest} != linear or bool(rest) != bool(familiarity):
        return False
    body, here = data[8 + length :], 0
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = one["data_offsets"]
        if one["dtype"] != "F32" or start != here or end - start != 4 * math.prod(one["shape"]) or end > len(body):
            return False
        here = end
        numbers = array("f", body[start:end])
        if not all(map(math.isfinite, numbers)) or (name.endswith("variances") and min(numbers) <= 0):
            return False
    return here == len(body)


def describe(config: Mapping[str, Any], place: str | Path, *, fits: str | None = None) -> None:
    """Print a head's configuration for people."""
    draft, known = config["draft"], config["familiarity"]
    rows = {
        "head": str(place),
        "target": _model(config["target"]),
        **({"draft": _model(draft)} if draft else {}),
        **({"fits": f"yes, {fits}"} if fits else {}),
        "reads": f"{_place(config)}; gives the probability of {config['polarity']}",
        "threshold": f"{config['threshold']:.4g}",
        "draft length": str(config["num_draft_tokens"] or "not tuned"),
        "labels": config["labels"],
        "data": ", ".join(f"{k} {v}" for k, v in config["data"].items()),
        "familiarity": f"from {known['questions']} training questions"
        if known
        else "unknown: it cannot measure the distance of a prompt from its training questions",
        **{
            name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in config["calibration"].items()
            # Curves and tables are in the card and in the output of --json.
            if value is not None and not isinstance(value, list | dict)
        },
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Terminal().print(table)


def print_json(config: Mapping[str, Any]) -> None:
    """Print a head's configuration for programs."""
    say_json(json_module.dumps(config, indent=2, ensure_ascii=False))


def _place(config: Mapping[str, Any]) -> str:
    draft = config["draft"]
    if config["layer"] < -1:
        return f"hidden state after layer {config['layer']}{', and the last of the draft' if draft else ''}"
    return f"last hidden state{' of both' if draft else ''}, {config['norm']} the final norm"


def _model(info: Mapping[str, Any]) -> str:
    size, layers = info["hidden_size"], info["num_hidden_layers"]
    return f"{info['name_or_path']} ({info['architecture']}, hidden size {size}, {layers} layers)"
