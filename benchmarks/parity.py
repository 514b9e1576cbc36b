"""Greedy parity on a real model: our exact rule and the judge at threshold 1 against ``model.generate``.

    python benchmarks/parity.py MODEL prompts.jsonl --prompts 50 --max-new-tokens 32

``prompts.jsonl`` has a question in ``turns[0]`` (Spec-Bench), ``question`` or ``prompt`` of each line. The drafts are
the model itself, prompt lookup, and a copy of the model cut to its first layers. The model runs in float32: in 16
bits two orders of summation may pick another token where two are equally likely.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Exact, JudgeDecoder, JudgeHead, JudgeHeadConfig, PromptLookup, Stats
from judge_decoding.judge.target import target_info
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.first_layers import first_layers


def main() -> None:
    """Print, for each draft, how many prompts gave identical tokens and what was accepted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("prompts_file", type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--num-draft-tokens", type=int, default=5)
    parser.add_argument("--layers", type=int, default=10, help="of the cut copy")
    args = parser.parse_args()
    tokenizer, model = load_tokenizer(args.model), load_model(args.model, dtype=torch.float32)
    head = JudgeHead(JudgeHeadConfig(target=target_info(model)))
    lines = [json.loads(line) for line in args.prompts_file.read_text(encoding="utf-8").splitlines()]
    # Spread over the file, as its lines are sorted by category.
    lines = lines[:: max(1, len(lines) // args.prompts)][: args.prompts]
    texts = [line["turns"][0] if "turns" in line else line.get("question", line.get("prompt")) for line in lines]
    drafts = {
        "itself": model,
        "prompt lookup": PromptLookup(),
        f"its first {args.layers} layers": first_layers(model, args.layers),
    }
    decoders = {
        name: JudgeDecoder(model, tokenizer, draft, head, num_draft_tokens=args.num_draft_tokens)
        for name, draft in drafts.items()
    }
    same = dict.fromkeys(decoders, 0)
    stats = {name: Stats() for name in decoders}
    differing: list[str] = []
    for text in (bar := tqdm(texts)):
        ids = decoders["itself"].encode([{"role": "user", "content": text}])
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=args.max_new_tokens,
                do_sample=False,
                repetition_penalty=1.0,
            )
        expected = tuple(out[0, ids.shape[1] :].tolist())
        for name, decoder in decoders.items():
            ours = decoder.generate(ids, args.max_new_tokens, rule=Exact())
            strict = decoder.generate(ids, args.max_new_tokens, threshold=1.0)
            identical = ours.token_ids == expected == strict.token_ids
            same[name] += identical
            stats[name].merge(ours.stats)
            if not identical:
                differing.append(f"{name}: {text[:60]!r}")
        bar.set_postfix(same)
    result = {
        "command": " ".join(["python", *sys.argv]), "prompts": len(texts),
        "drafts": {n: {"identical": same[n], **stats[n].to_dict()} for n in drafts},
        "differing": differing,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
