"""Put an adapter into its base, cut to its first layers if the adapter is of fewer: an ordinary checkpoint.

python recipes/smollm2_e2e/merge.py BASE ADAPTER OUT --layers 10 --vocab 2048 --texts data/draft.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from judge_decoding.models.draft_vocabulary import most_frequent, write_vocabulary
from judge_decoding.reference.language_pair import merge_adapter


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
    parser.add_argument("adapter", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, help="of the adapter's model, where it has fewer than the base")
    parser.add_argument("--vocab", type=int, help="have the draft propose only so many tokens, the most frequent ones")
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="of these JSON lines' texts")
    args = parser.parse_args()
    model = load_base(args.base, args.layers)
    merge_adapter(model, args.adapter)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    if args.vocab is not None:
        rows = [json.loads(line) for path in args.texts for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [tokenizer(row[field], add_special_tokens=False).input_ids for row in rows for field in ("mr", "text")]
        ids = most_frequent(texts, args.vocab, [tokenizer.eos_token_id], model.config.vocab_size)
        model.config.draft_vocabulary = len(ids)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    if args.vocab is not None:
        write_vocabulary(args.out, ids)


if __name__ == "__main__":
    main()
