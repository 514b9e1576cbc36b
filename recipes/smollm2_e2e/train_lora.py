"""Fine-tune SmolLM2 on descriptions by LoRA: the target, or with ``--layers`` the draft. Goes on where it was stopped.

Up to four answers to one question stand behind it in a row; a 4D mask keeps each from seeing the others, so that the
question is read once. Only the answers' tokens have logits.

    python recipes/smollm2_e2e/train_lora.py BASE data/target.jsonl --out target
    python recipes/smollm2_e2e/train_lora.py BASE data/draft.jsonl --layers 10 --out draft
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from judge_decoding.io.files import replacing, write_json
from judge_decoding.tasks.e2e import question
from merge import load_base

ANSWERS, ROWS = 4, 4
"""Most answers behind a question, and questions in a batch."""


class Packed(NamedTuple):
    """A question and its answers as one sequence; a token's part is 0 in the question, then the answer's number."""

    ids: list[int]
    positions: list[int]
    parts: list[int]
    labels: list[int]


def pack(mr: str, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Packed:
    """Put answers behind the question. Each begins with the question's last token, where its first one is predicted."""
    message = [{"role": "user", "content": question(mr)}]
    prompt = list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))
    packed = Packed([*prompt], [*range(len(prompt))], [0] * len(prompt), [-100] * len(prompt))
    for part, text in enumerate(texts, start=1):
        answer = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        packed.ids.extend([prompt[-1], *answer[:-1]])
        packed.positions.extend(range(len(prompt) - 1, len(prompt) - 1 + len(answer)))
        packed.parts.extend([part] * len(answer))
        packed.labels.extend(answer)
    return packed


def batches(groups: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, seed: int) -> list[list[Packed]]:
    """One epoch: sequences of like length share a batch, and the batches are in random order."""
    rng, items = random.Random(seed), []
    for mr, texts in groups.items():
        shuffled = rng.sample(texts, len(texts))
        items += [(mr, shuffled[i : i + ANSWERS]) for i in range(0, len(shuffled), ANSWERS)]
    rng.shuffle(items)
    packed, found = [pack(mr, texts, tokenizer) for mr, texts in items], []
    for begin in range(0, len(packed), 16 * ROWS):
        like = sorted(packed[begin : begin + 16 * ROWS], key=lambda one: len(one.ids))
        found += [like[i : i + ROWS] for i in range(0, len(like), ROWS)]
    rng.shuffle(found)
    return found


def tensors(batch: Sequence[Packed]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, positions and labels [B, T], and the mask [B, 1, T, T] that is added to the attention's scores."""
    longest = max(len(one.ids) for one in batch)

    def padded(rows: Sequence[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    parts = padded([one.parts for one in batch], -1)
    place = torch.arange(longest)
    # An answer sees itself and the question but for its last token, which it has itself.
    seen = (place[None, :] < (parts == 0).sum(1)[:, None] - 1)[:, None, :] & (parts > 0)[:, :, None]
    may = (place[:, None] >= place[None, :]) & ((parts[:, :, None] == parts[:, None, :]) | seen)
    may |= torch.eye(longest, dtype=torch.bool)
    mask = torch.where(may, 0.0, torch.finfo(torch.float32).min)[:, None]
    ids, positions = padded([one.ids for one in batch], 0), padded([one.positions for one in batch], 0)
    return ids, positions, padded([one.labels for one in batch], -100), mask


def save(folder: Path, optimizer: torch.optim.Optimizer, params: Sequence[Tensor], progress: dict[str, float]) -> None:
    """Write a checkpoint: weights and the optimizer's means in one file, and the progress, whose file comes last."""
    state = {f"weight.{i}": param.detach() for i, param in enumerate(params)}
    for i, param in enumerate(params):
        state |= {f"{name}.{i}": value for name, value in optimizer.state[param].items()}
    with replacing(folder / f"state-{progress['step']}.safetensors") as temporary:
        save_file(state, temporary)
    write_json(folder / "progress.json", progress)
    for old in folder.glob("state-*.safetensors"):
        if old.name != f"state-{progress['step']}.safetensors":
            old.unlink()


def resume(folder: Path, optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> dict[str, float]:
    """Take the last checkpoint, if there is one; the progress."""
    file = folder / "progress.json"
    if not file.exists():
        return {"step": 0, "epoch": 0, "index": 0}
    progress = json.loads(file.read_text(encoding="utf-8"))
    state = load_file(folder / f"state-{progress['step']}.safetensors")
    for i, param in enumerate(params):
        param.data.copy_(state[f"weight.{i}"])
        optimizer.state[param] = {name: state[f"{name}.{i}"] for name in ("step", "exp_avg", "exp_avg_sq")}
    return progress


def main() -> None:
    """Train, print the loss, and write the adapter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("answers", type=Path, help="JSON lines of mr and text")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--adapter", help="go on from this one instead of a new one")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--steps", type=int, help="two epochs if not given")
    parser.add_argument("--save-every", type=int, default=100)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    base = load_base(args.base, args.layers)
    if args.adapter is not None:
        model = PeftModel.from_pretrained(base, args.adapter, is_trainable=True)
    else:
        config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear")
        model = get_peft_model(base, config)
    inner = model.base_model.model
    groups: dict[str, set[str]] = defaultdict(set)
    for line in args.answers.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        groups[row["mr"]].add(row["text"].strip())
    answers = {mr: sorted(texts) for mr, texts in groups.items()}
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    progress = resume(args.out, optimizer, params)
    total = args.steps or 2 * len(batches(answers, tokenizer, 0))
    mean = None
    while progress["step"] < total:
        epoch = batches(answers, tokenizer, int(progress["epoch"]))
        for batch in epoch[int(progress["index"]) :]:
            if progress["step"] >= total:
                break
            ids, positions, labels, mask = tensors(batch)
            rate = args.lr * min(1, (progress["step"] + 1) / 50) * max(0.05, 1 - progress["step"] / total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            kept = labels != -100
            with torch.autocast("cpu", torch.bfloat16):
                said = inner.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
                logits = inner.lm_head(said.last_hidden_state[kept])
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[kept])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
            progress["step"] += 1
            progress["index"] += 1
            if progress["step"] % 20 == 0:
                print(f"step {progress['step']} of {total}, loss {mean:.4f}", flush=True)
            if progress["step"] % args.save_every == 0:
                save(args.out, optimizer, params, progress)
        else:
            progress |= {"epoch": progress["epoch"] + 1, "index": 0}
    save(args.out, optimizer, params, progress)
    model.save_pretrained(args.out / "adapter")


if __name__ == "__main__":
    main()
