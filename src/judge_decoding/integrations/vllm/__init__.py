"""Judge decoding inside vLLM: a plugin that vLLM loads automatically and one flag turns on.

``vllm serve TARGET --speculative-config {...} --additional-config '{"judge": {"head": "HEAD"}}'``

vLLM has no hook for the acceptance decision, so this package wraps some of its functions: `hooks` defines what happens
around each, `patching` wraps them, `versions` lists the signatures relied on, and `runner` holds the judge of a model
runner.
"""

from __future__ import annotations

from judge_decoding.integrations.vllm.checks import log
from judge_decoding.integrations.vllm.hooks import GATES
from judge_decoding.integrations.vllm.patching import wrap


def register() -> None:
    """Entry point of the plugin: inspect every new configuration, in each of vLLM's processes."""
    for symbol, hook in GATES.items():
        try:
            wrap(symbol, hook)
        except (ImportError, AttributeError):
            log.warning("judge-decoding does not know this version of vLLM (it has no %s).", symbol)
