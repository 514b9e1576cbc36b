"""Verification rules, which decide which draft tokens to keep."""

from judge_decoding.rules.base import AnyOf as AnyOf
from judge_decoding.rules.base import VerificationRule as VerificationRule
from judge_decoding.rules.divergence import Fuzzy as Fuzzy
from judge_decoding.rules.divergence import KLJudge as KLJudge
from judge_decoding.rules.evidence import Evidence as Evidence
from judge_decoding.rules.exact import Block as Block
from judge_decoding.rules.exact import Exact as Exact
from judge_decoding.rules.judge import Judge as Judge
from judge_decoding.rules.likelihood import EntropyGate as EntropyGate
from judge_decoding.rules.likelihood import MarginRatio as MarginRatio
from judge_decoding.rules.likelihood import MinProbability as MinProbability
from judge_decoding.rules.likelihood import Relaxed as Relaxed
from judge_decoding.rules.likelihood import RunningSurprise as RunningSurprise
from judge_decoding.rules.likelihood import TopK as TopK
from judge_decoding.rules.likelihood import Typical as Typical
from judge_decoding.rules.mixture import Cascade as Cascade
from judge_decoding.rules.mixture import Ensemble as Ensemble
from judge_decoding.rules.ratio import Lenience as Lenience
from judge_decoding.rules.ratio import Mentored as Mentored
from judge_decoding.rules.ratio import MentoredSimple as MentoredSimple
from judge_decoding.rules.spelling import available_rules as available_rules
from judge_decoding.rules.spelling import parse_rule as parse_rule
from judge_decoding.rules.truncation import Truncation as Truncation
from judge_decoding.rules.truncation import TruncationRule as TruncationRule
