"""The memory of a process that decodes with the static back end, measured in one that does nothing else.

Weights that are mapped from their file count as resident once they have been read, and so are in every figure here.
What a process has before it loads the models (interpreter, torch, thread pools) is measured first and taken off.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.backends.static.draft import COLUMNS
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.visible import one_line

_PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Job:
    """What the process does.

    Attributes:
        target: name or folder.
        draft: name or folder; None for none.
        judge: name or folder; None for none.
        dtype: of the weights.
        num_draft_tokens: draft length.
        max_new_tokens: token budget.
        prompts: token ids, decoded together.
        threads: of torch.
    """

    target: str
    draft: str | None
    judge: str | None
    dtype: str
    num_draft_tokens: int
    max_new_tokens: int
    prompts: Sequence[Sequence[int]]
    threads: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process that decodes with the static back end, in bytes.

    Attributes:
        libraries: what the process has before it loads the models.
        loading: its peak while it loads them.
        decoding: its peak while it decodes.
        weights: of both models, shared ones once.
        caches: keys and values of both.
        ratio: (decoding - libraries) / (weights + caches).
    """

    libraries: int
    loading: int
    decoding: int
    weights: int
    caches: int
    ratio: float


def measure_memory(job: Job) -> Memory:
    """Run ``job`` in a process of its own.

    Raises:
        JudgeDecodingError: it fails.
    """
    command = [sys.executable, __file__]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise JudgeDecodingError(f"The process whose memory was to be measured failed: {one_line(reason)}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def run(job: Job) -> Memory:
    """Do it in this process, which should have done nothing before."""
    torch.set_num_threads(job.threads)
    a = torch.ones(512, 512)
    torch.nn.functional.scaled_dot_product_attention(a[None, None], a[None, None], a[None, None])
    (a @ a).sum().item()  # thread pools and the libraries' own buffers
    libraries = _resident()
    decoder = JudgeDecoder.from_pretrained(job.target, job.draft, job.judge, dtype=job.dtype, backend="static")
    loading = _peak()
    told: list[str] = []
    reasons = decoder.compile(told.append)
    if reasons:
        raise JudgeDecodingError("; ".join(reasons))
    if told:  # much of what compiling needed is still there: once more, with what it has made
        return measure_memory(job)
    _forget_peak()
    prompts = [torch.tensor(ids) for ids in job.prompts]
    decoder.generate_batch(
        prompts, job.max_new_tokens, batch_size=len(prompts), num_draft_tokens=job.num_draft_tokens, temperature=0
    )
    decoding = _peak()
    weights, caches = weight_bytes(decoder), cache_bytes(decoder, job)
    return Memory(
        libraries=libraries, loading=loading, decoding=decoding, weights=weights, caches=caches,
        ratio=(decoding - libraries) / (weights + caches),
    )  # fmt: skip


def weight_bytes(decoder: JudgeDecoder) -> int:
    """Bytes of the weights of target and draft, shared ones once."""
    models = [decoder.target, *_draft(decoder)]
    weights = {weight.data_ptr(): weight.nbytes for model in models for weight in model.parameters()}
    return sum(weights.values())


def cache_bytes(decoder: JudgeDecoder, job: Job) -> int:
    """Bytes of the keys and values that decoding ``job`` asks for."""
    longest, rows = max(map(len, job.prompts)) + job.max_new_tokens, len(job.prompts)
    caches = [StaticKVCache(decoder.target, rows, longest)]
    for model in _draft(decoder):
        caches.append(StaticKVCache(model, rows, COLUMNS))
        caches[-1].columns(longest)
    return sum(values.nbytes for one in caches for layer in one.cache for values in layer)


def _draft(decoder: JudgeDecoder) -> list[PreTrainedModel]:
    return [decoder.draft] if isinstance(decoder.draft, PreTrainedModel) else []


def _resident() -> int:
    """Bytes of this process in memory."""
    try:
        pages = int((_PROC / "statm").read_text().split()[1])
    except OSError:  # no Linux: the peak so far
        return _peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    """The most it had, in bytes, since `_forget_peak`."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _forget_peak() -> None:
    """So that what loading needed for a moment is not taken for what decoding needs; where that can be done."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def main() -> None:
    """Do the job that standard input has, and print what it took."""
    print(json.dumps(asdict(run(Job(**json.loads(sys.stdin.read()))))))


if __name__ == "__main__":
    main()
