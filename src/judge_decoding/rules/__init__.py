"""Verification rules, which decide which draft tokens to keep."""

from judge_decoding.rules.base import AnyOf, VerificationRule
from judge_decoding.rules.divergence import Fuzzy, KLJudge
from judge_decoding.rules.evidence import Evidence
from judge_decoding.rules.exact import Block, Exact
from judge_decoding.rules.judge import Judge
from judge_decoding.rules.likelihood import (
    EntropyGate,
    MarginRatio,
    MinProbability,
    Relaxed,
    RunningSurprise,
    TopK,
    Typical,
)
from judge_decoding.rules.mixture import Cascade, Ensemble
from judge_decoding.rules.ratio import Lenience, Mentored, MentoredSimple
from judge_decoding.rules.spelling import available_rules, parse_rule
from judge_decoding.rules.truncation import Truncation, TruncationRule

__all__ = [
    "AnyOf",
    "Block",
    "Cascade",
    "Ensemble",
    "EntropyGate",
    "Evidence",
    "Exact",
    "Fuzzy",
    "Judge",
    "KLJudge",
    "Lenience",
    "MarginRatio",
    "Mentored",
    "MentoredSimple",
    "MinProbability",
    "Relaxed",
    "RunningSurprise",
    "TopK",
    "Truncation",
    "TruncationRule",
    "Typical",
    "VerificationRule",
    "available_rules",
    "parse_rule",
]
