"""Checks before serving: refuse configurations and weights that the judge cannot work with.

Importing this module does not import vLLM.
"""

from __future__ import annotations

import logging
from typing import Any

from judge_decoding.core.hidden import LAST
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import fingerprint_positions
from judge_decoding.rules.base import VerificationRule
from judge_decoding.serving.server_rules import ServerRules

log = logging.getLogger("vllm.judge_decoding")  # a child of vLLM's logger, so that its settings apply


def check_server(config: Any, rules: ServerRules) -> None:
    """Refuse a configuration (``VllmConfig``) in which the judge cannot work."""
    speculative, parallel, rule = config.speculative_config, config.parallel_config, rules.rule
    if speculative is None or speculative.method == "extract_hidden_states":
        raise JudgeDecodingError(
            "A judge decides about draft tokens, and this server drafts none; give a drafter with "
            "--speculative-config, or leave the judge out."
        )
    if config.model_config.is_diffusion:
        raise JudgeDecodingError(
            "A judge reads drafts from left to right, and this is a diffusion model; leave it out."
        )
    if speculative.rejection_sample_method != "standard":
        raise JudgeDecodingError(
            f"rejection_sample_method is {speculative.rejection_sample_method}, and a judge works beside the standard "
            "one; leave it out of --speculative-config."
        )
    if parallel.distributed_executor_backend == "external_launcher" and parallel.pipeline_parallel_size > 1:
        raise JudgeDecodingError(
            "With the external launcher and pipeline parallelism not every process that verifies has the hidden states "
            "that a judge reads; use tensor parallelism."
        )
    if rule.needs_draft_probs and speculative.draft_sample_method != "probabilistic":
        raise JudgeDecodingError(
            f"The rule {rule} compares the draft's probabilities with the target's, which vLLM keeps only where "
            'drafts are sampled; add "draft_sample_method": "probabilistic" to --speculative-config.'
        )
    if rules.head is not None and config.lora_config is not None:
        raise JudgeDecodingError(
            "A judge head knows the target's own hidden states, and LoRA adapters change them; leave one of them out."
        )
    if rules.guards and (remedy := why_unguarded(config)):
        raise JudgeDecodingError(f"The judge's guards cannot work on this server; {remedy}, or leave them out.")
    if config.use_v2_model_runner:
        _check_v2(speculative, parallel, rule)
    if rules.head is not None:
        model = config.model_config
        text = model.hf_text_config
        rules.head.config.target.check_shape(
            str(model.model), text.hidden_size, text.num_hidden_layers, *(model.architectures or ())
        )


def _check_v2(speculative: Any, parallel: Any, rule: VerificationRule) -> None:
    for wrong, what in (
        (rule.source not in (None, LAST), "heads on states before the final norm or of a lower layer"),
        (rule.needs_draft_probs, "rules that compare the draft's probabilities"),
        (speculative.enable_adaptive_verification, "adaptive verification"),
        (parallel.enable_batch_sharded_sampling, "batch-sharded sampling"),
    ):
        if wrong:
            raise JudgeDecodingError(
                f"In vLLM's model runner V2 the judge does not work with {what}; set VLLM_USE_V2_MODEL_RUNNER=0 in the "
                "environment, or leave that out."
            )


def why_unguarded(config: Any) -> str | None:
    """Return what to change in a configuration in which guards cannot work; None if they can.

    A guard reads the tokens that a request has kept so far, which asynchronous scheduling knows one step late.
    """
    if config.use_v2_model_runner:
        return "set VLLM_USE_V2_MODEL_RUNNER=0 in the environment and start it with --no-async-scheduling"
    return "start it with --no-async-scheduling" if config.scheduler_config.async_scheduling else None


def wants_logprobs(params: Any) -> bool:
    """Whether a request (``SamplingParams``) asks for log-probabilities of its output."""
    return params.logprobs is not None or params.logprob_token_ids is not None


def check_weights(rules: ServerRules, model: Any) -> None:
    """Check that the loaded target is the head's, by this process's shard of the output layer's weights."""
    assert rules.head is not None
    target = rules.head.config.target
    language = model.get_language_model() if hasattr(model, "get_language_model") else model
    output = getattr(language, "lm_head", None)
    weight, shard = getattr(output, "weight", None), getattr(output, "shard_indices", None)
    if weight is None or shard is None or not weight.is_floating_point() or weight.shape[-1] != target.hidden_size:
        _cannot_compare(
            rules.head, "The judge head cannot be compared with the target's weights, which are quantised or elsewhere."
        )
        return
    if target.fingerprint is None:
        _cannot_compare(
            rules.head,
            "The judge head was trained on a quantised target, whose weights cannot be compared with others.",
        )
        return
    first, end = shard.org_vocab_start_index, shard.org_vocab_end_index
    found: dict[int, float] = {}
    rows = target.rows or language.lm_head.org_vocab_size
    for number, (row, column) in enumerate(fingerprint_positions(rows, target.hidden_size)):
        if first <= row < end:
            found[number] = float(weight[row - first, column])
    target.check_weights(found)


def _cannot_compare(head: JudgeHead, why: str) -> None:
    """Say that the weights cannot be compared, unless the head's scores will be (see `scores`)."""
    if head.config.scores is None:
        log.warning("%s Train it again with this version, and its scores are compared.", why)
