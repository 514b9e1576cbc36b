"""The baseline that a lossy rule has to beat: lossless decoding of the target under the same truncation."""

from __future__ import annotations

from dataclasses import replace

from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.truncation import Truncation


def matched_sampling(rule: VerificationRule, sampling: SamplingParams) -> SamplingParams | None:
    """Return the sampling whose lossless decoding is the distribution-matched baseline of ``rule`` (arXiv 2607.26627).

    Many lossy rules are truncation sampling in disguise: they let the draft choose among the tokens that the target
    finds good enough. Sampling from the same truncated distribution would give the target alone the same gain in
    quality over plain sampling, so that is the fair comparison. Decode the baseline with a lossless rule, such as
    `Exact`, the same draft and the draft length that suits it.

    At temperature 0 a rule reads its probabilities from the plain softmax of the logits, without temperature, top-p,
    top-k and min-p. The baseline samples from that distribution at temperature 1, truncated as the rule truncates it.
    (Greedy decoding is the strongest truncation: only the first choice remains.) Where ``sampling`` has a temperature,
    the rule reads the probabilities after all of its settings, and the truncation comes after them.

    Args:
        rule: the lossy rule.
        sampling: how the rule's own answers are sampled. The baseline keeps its seed and repetition penalty.

    Returns:
        None for a rule that reads anything besides the target's distribution at the token's own position (the draft's
        distribution, hidden states, other tokens), and for a lossless rule, whose baseline is ``sampling`` itself.

    Raises:
        JudgeDecodingError: ``sampling`` has a truncation already.
    """
    if sampling.truncation is not None:
        raise JudgeDecodingError(
            f"The sampling is already truncated, by {sampling.truncation}; give the sampling of the rule's own answers."
        )
    truncation = None if rule.is_lossless else Truncation.of(rule)
    if truncation is None:
        return None
    if sampling.temperature:
        return replace(sampling, truncation=truncation)
    return replace(sampling, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, truncation=truncation)
