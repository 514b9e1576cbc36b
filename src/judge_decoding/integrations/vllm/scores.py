"""Compare a head's stored scores with those on the loaded target, before the server answers anything.

The fingerprint in `checks` sees only the output embeddings, and those only where they are not quantised. So the engine
reads the head's stored prompts as its first requests, and the model runner reports the scores.

Importing this module does not import vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from judge_decoding.integrations.vllm.checks import log
from judge_decoding.judge.config import StoredScores
from judge_decoding.judge.head import JudgeHead

PREFIX = "judge-decoding-scores-"
"""The ids of these requests begin with it."""

_STARTING: ContextVar[Any] = ContextVar("judge_decoding_starting", default=None)


def start(engine: Any) -> None:
    """Remember the engine (``EngineCore``) that is being made in this thread, until `take_started`."""
    _STARTING.set(engine)


def take_started() -> Any:
    """Return the engine that is being made, once; None if none is, or it has no judge."""
    engine = _STARTING.get()
    _STARTING.set(None)
    return engine


def scored(head: JudgeHead | None, names: Sequence[str], states: Tensor) -> tuple[list[str], Tensor] | None:
    """Return which of the requests ``names`` [R] are stored prompts, and their scores; None if none is.

    ``states`` [R, H] are the hidden states at each request's last token.
    """
    rows = [row for row, name in enumerate(names) if name.startswith(PREFIX)]
    if not rows or head is None:
        return None
    return [names[row] for row in rows], head.log_odds(states[rows])


def check_scores(engine: Any, head: JudgeHead) -> None:
    """Compare the scores of ``head`` on the target of a new ``engine`` (``EngineCore``) with the stored ones."""
    stored, config = head.config.scores, engine.vllm_config
    if stored is None:  # a head of an older version
        return
    if (why := _why_not(stored, config)) is not None:
        log.warning("The judge head's scores were not compared with those in its training: %s.", why)
        return
    found = _scores(engine, stored)
    if found is None:
        log.warning("The judge head's scores were not compared with those in its training: vLLM reported none.")
        return
    probe = head.config.target.probe
    quantized = config.model_config.quantization is not None or config.cache_config.cache_dtype != "auto"
    quantized = quantized or (probe is not None and probe.quantization is not None)
    said = stored.check(found, str(config.model_config.model), quantized=quantized)
    log.info("%s.", said[0].upper() + said[1:])


def _why_not(stored: StoredScores, config: Any) -> str | None:
    if config.parallel_config.data_parallel_size > 1:
        return "with data parallelism the engines cannot answer alone"
    longest = max(len(prompt) for prompt in stored.prompts)
    if config.model_config.max_model_len <= longest:
        return f"the longest prompt has {longest} tokens, which do not fit into --max-model-len"
    return None


def _scores(engine: Any, stored: StoredScores) -> list[float] | None:
    """Read the stored prompts in ``engine``; return the scores in their order, or None if one is missing."""
    from vllm.sampling_params import SamplingParams  # noqa: PLC0415  (an extra)
    from vllm.v1.request import Request  # noqa: PLC0415  (an extra)

    scheduler, names = engine.scheduler, [f"{PREFIX}{number}" for number in range(len(stored.prompts))]
    found: dict[str, float] = {}
    scheduler.judge_scores = found
    try:
        for name, prompt in zip(names, stored.prompts, strict=True):  # one by one, so that none is read in parts
            params = SamplingParams(temperature=0.0, max_tokens=1)
            engine.add_request(Request(name, list(prompt), params, None, block_hasher=engine.request_block_hasher))
            while scheduler.has_requests() or engine.batch_queue:
                _, executed = engine.step_fn()
                engine.post_step(executed)
    finally:
        del scheduler.judge_scores
    return [found[name] for name in names] if found.keys() == set(names) else None
