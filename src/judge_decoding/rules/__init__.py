"""Verification rules: who decides which draft tokens stay."""

from judge_decoding.rules.base import AnyOf, Evidence, VerificationRule
from judge_decoding.rules.exact import Exact
from judge_decoding.rules.judge import Judge
from judge_decoding.rules.likelihood import MinProbability, TopK

__all__ = ["AnyOf", "Evidence", "Exact", "Judge", "MinProbability", "TopK", "VerificationRule"]
