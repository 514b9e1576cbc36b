"""The embedded draft for engines that do not support the width of its attention heads."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from judge_decoding.reference import pair

WIDTH = 32
"""Width of an attention head; vLLM's CPU kernels do not support 24."""


def wide_draft(folder: Path) -> Path:
    """Write the embedded draft into the new ``folder``, with its attention heads zero-padded to `WIDTH`.

    In vLLM its outputs stay the same: the padding adds nothing to a score, the weights compensate for the larger
    divisors of the norms and of the score, and the rotation is limited to the original dimensions. transformers rotates
    all dimensions of this architecture's heads, so this draft does not work there.
    """
    shutil.copytree(pair.DRAFT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    width, heads = config["head_dim"], config["num_attention_heads"]
    config["head_dim"] = WIDTH
    config["rope_parameters"]["partial_rotary_factor"] = width / WIDTH
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(pair.DRAFT / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            wide = torch.zeros(heads, WIDTH, weight.shape[1])
            wide[:, :width] = weight.view(heads, width, -1)
            weights[name] = wide.flatten(0, 1)
        elif name.endswith("o_proj.weight"):
            wide = torch.zeros(len(weight), heads, WIDTH)
            wide[..., :width] = weight.view(-1, heads, width)
            weights[name] = wide.flatten(1).contiguous()
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            wide = torch.zeros(WIDTH)
            wide[:width] = weight if name.endswith("q_norm.weight") else weight * math.sqrt(width / WIDTH)
            weights[name] = wide
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
