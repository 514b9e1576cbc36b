"""Accepted tokens by cause as vLLM metrics: in its Prometheus endpoint and, every few seconds, in its log."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import prometheus_client
from vllm.v1.metrics.loggers import AggregateStatLoggerBase

from judge_decoding.core.rounds import Cause
from judge_decoding.serving.server_rules import KEY

_log = logging.getLogger("vllm.judge_decoding")
_NAME = "judge_decoding:accepted_tokens"


class AcceptanceByCause(AggregateStatLoggerBase):  # type: ignore[misc]  # vllm has no types here
    """A logger that vLLM creates in its server's front end; it does nothing without a judge in the configuration.

    The counts add up to ``vllm:spec_decode_num_accepted_tokens``, which counts accepted draft tokens even after an end
    token or a stop string inside the draft.
    """

    def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:
        self._counters: dict[tuple[int, Cause], prometheus_client.Counter] = {}
        self._since = Counter[Cause]()
        if not (isinstance(vllm_config.additional_config, dict) and KEY in vllm_config.additional_config):
            return
        registered = prometheus_client.REGISTRY._names_to_collectors
        counter = registered.get(_NAME) or prometheus_client.Counter(
            _NAME,
            "Accepted draft tokens: agreed by standard verification, or rescued by the judge alone.",
            ("model_name", "engine", "cause"),
        )
        name = vllm_config.model_config.served_model_name
        for engine in engine_indexes:
            for cause in (Cause.AGREED, Cause.RESCUED):
                self._counters[engine, cause] = counter.labels(name, str(engine), cause.value)

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Count what one step of an engine accepted."""
        stats = getattr(scheduler_stats, "spec_decoding_stats", None)
        if stats is None or not self._counters:
            return
        rescued = getattr(stats, "num_rescued_tokens", 0)
        for cause, count in ((Cause.AGREED, stats.num_accepted_tokens - rescued), (Cause.RESCUED, rescued)):
            self._counters[engine_idx, cause].inc(count)
            self._since[cause] += count

    def log(self) -> None:
        """Log the tokens accepted since the last call."""
        accepted = self._since.total()
        if not accepted:
            return
        rescued = self._since[Cause.RESCUED]
        _log.info(
            "Judge metrics: Accepted: %d tokens, Agreed: %d, Rescued: %d (%.1f%%)",
            accepted, accepted - rescued, rescued, 100 * rescued / accepted,
        )  # fmt: skip
        self._since.clear()

    def log_engine_initialized(self) -> None:
        """Do nothing."""
