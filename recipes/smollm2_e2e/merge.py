"""Put an adapter into its base, cut to its first layers if the adapter is of fewer: an ordinary checkpoint.

python recipes/smollm2_e2e/merge.py BASE ADAPTER OUT --layers 6
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel


def load_base(base: str, layers: int | None) -> PreTrainedModel:
    """The base in float32, or its first ``layers`` with its embeddings, norm and head."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[:layers]
    return model


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, help="of the adapter's model, where it has fewer than the base")
    args = parser.parse_args()
    model = PeftModel.from_pretrained(load_base(args.base, args.layers), args.adapter).merge_and_unload()
    model.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.base).save_pretrained(args.out)


if __name__ == "__main__":
    main()
