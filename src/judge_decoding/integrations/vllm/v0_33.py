"""vLLM 0.33: adds its own lossy verification (fly) and one more method of asynchronous outputs."""

from __future__ import annotations

from judge_decoding.integrations.vllm import v0_32

_FLY = ("fly_window_size", "fly_entropy_threshold", "fly_entropy_top_k")
SIGNATURES: dict[str, tuple[str, ...]] = {
    symbol: (*parameters, *_FLY) if symbol.endswith(":rejection_sample") else parameters
    for symbol, parameters in v0_32.SIGNATURES.items()
}
ABSTRACT: dict[str, tuple[str, ...]] = {
    "vllm.v1.outputs:AsyncModelRunnerOutput": ("get_kv_connector_output", "get_output")
}
READS = v0_32.READS
