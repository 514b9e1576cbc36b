"""Train one of the reference models from scratch; run again with the same arguments to resume.

python recipes/reference_pair/train_lm.py target --tokenizer TOK --out OUT --minutes 60
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from corpus import ARITHMETIC, ARITHMETIC_WEIGHT, DRAFT_TASTE, TARGET_TASTE, batches
from judge_decoding.loading.models import load_tokenizer

SHAPES = {
    "target": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8, "num_attention_heads": 4},
    "draft": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4},
}


def build(role: str, tokenizer: object) -> Qwen3ForCausalLM:
    """A fresh model of the role's shape.

    Qwen3's architecture, as it normalises queries and keys: without that the attention of eight layers saturates within
    some hundred steps (entropy below 0.3 nats in every head), and what a verb does to a number is never learned.
    """
    config = Qwen3Config(
        head_dim=SHAPES[role]["hidden_size"] // SHAPES[role]["num_attention_heads"],
        vocab_size=len(tokenizer), max_position_embeddings=256, tie_word_embeddings=True, rope_theta=1000.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        num_key_value_heads=SHAPES[role]["num_attention_heads"], **SHAPES[role],
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def main() -> None:
    """Train until the step budget is used."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("target", "draft"))
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.01, help="Muon's, for the matrices")
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--no-slips", action="store_true", help="the control: a corpus without slips")
    parser.add_argument("--practice", type=float, default=0.0, help="share of practice sheets among the documents")
    parser.add_argument("--draft-share", type=float, default=0.0, help="share of documents to the draft's taste")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--keep", action="store_true", help="keep the model of every checkpoint")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    tokenizer = load_tokenizer(args.tokenizer)
    model = build(args.role, tokenizer)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    base = [group["lr"] for o in optimizers for group in o.param_groups]
    args.out.mkdir(parents=True, exist_ok=True)
    state_file, step, tokens, spent = args.out / "state.pt", 0, 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, tokens, spent = state["step"], state["tokens"], state["seconds"]
    print(f"{args.role}: {sum(p.numel() for p in model.parameters()):,} parameters, from step {step}", flush=True)

    target = args.role == "target"
    stream = batches(
        tokenizer,
        1000 * args.seed + step,
        TARGET_TASTE if target else DRAFT_TASTE,
        target and not args.no_slips,
        args.batch,
        args.practice,
        args.draft_share,
    )
    weights = torch.ones(len(tokenizer))
    for token, index in tokenizer.get_vocab().items():
        if ARITHMETIC.fullmatch(token):
            weights[index] = ARITHMETIC_WEIGHT
    log = (args.out / "log.jsonl").open("a")
    begin, mean = time.time(), None
    while step < args.steps:
        ids, labels = next(stream)
        warm, left = min(1.0, (step + 1) / 50), (args.steps - step) / args.steps
        factor = min(warm, 2 * left)  # linear decay over the last half
        for rate, group in zip(base, (g for o in optimizers for g in o.param_groups), strict=True):
            group["lr"] = rate * factor
        logits = model(input_ids=ids).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
        )
        weight = weights[ids[:, 1:].flatten()] * (labels[:, 1:].flatten() >= 0)
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + int((ids != tokenizer.pad_token_id).sum())
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0 or step == args.steps:
            seconds = spent + time.time() - begin
            record = {
                "step": step,
                "tokens": tokens,
                "seconds": round(seconds),
                "loss": round(mean, 4),
                "lr": round(factor, 4),
            }
            assert math.isfinite(mean)
            log.write(json.dumps(record) + "\n")
            log.flush()
            print(record, flush=True)
        if step % args.save_every == 0 or step == args.steps:
            saved = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
                "step": step,
                "tokens": tokens,
                "seconds": spent + time.time() - begin,
            }
            torch.save(saved, args.out / "state.tmp")
            (args.out / "state.tmp").replace(state_file)
            model.save_pretrained(args.out / (f"step-{step}" if args.keep else "model"))
            tokenizer.save_pretrained(args.out / (f"step-{step}" if args.keep else "model"))


if __name__ == "__main__":
    main()
