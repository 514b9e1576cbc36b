"""Judge decoding: speculative decoding that keeps correct tokens, not only the target's own words."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judge_decoding.core.rounds import Cause, Round, Seconds, Stats, TokenDetails
    from judge_decoding.data.cases import Case, read_cases, write_cases
    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.decoding.answer import Chunk, Generation, Options
    from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest
    from judge_decoding.decoding.drafters.model import DraftModel
    from judge_decoding.decoding.drafters.simple import DraftFunction, PromptLookup
    from judge_decoding.decoding.drafters.translation import TranslatingDraft
    from judge_decoding.decoding.guards import Budget, Guard, LoopGuard, Overshoot, Phase, StrictStart, parse_guard
    from judge_decoding.decoding.lengths import Confident, CostOptimal, DraftLength, Fixed, Heuristic
    from judge_decoding.decoding.loop import decode
    from judge_decoding.decoding.request import Request
    from judge_decoding.decoding.sampling import Sampler, SamplingParams
    from judge_decoding.decoding.tokens import TokenBuffer
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.fit.config import FitConfig
    from judge_decoding.fit.pipeline import FitForecast, Fitted, fit_head
    from judge_decoding.integrations.transformers import custom_generate
    from judge_decoding.judge.head import JudgeHead, JudgeHeadConfig
    from judge_decoding.report.card_files import push_head, save_head, write_card
    from judge_decoding.rules import (
        AnyOf,
        Block,
        Cascade,
        Ensemble,
        EntropyGate,
        Evidence,
        Exact,
        Fuzzy,
        Judge,
        KLJudge,
        Lenience,
        MarginRatio,
        Mentored,
        MentoredSimple,
        MinProbability,
        Relaxed,
        RunningSurprise,
        TopK,
        Typical,
        VerificationRule,
        available_rules,
        parse_rule,
    )
    from judge_decoding.training.options import TrainingConfig
    from judge_decoding.training.training import train_head

__version__ = "0.2.0"

__all__ = [
    "AnyOf",
    "Block",
    "Budget",
    "Cascade",
    "Case",
    "Cause",
    "Chunk",
    "Confident",
    "CostOptimal",
    "Draft",
    "DraftFunction",
    "DraftLength",
    "DraftModel",
    "DraftRequest",
    "Drafter",
    "Ensemble",
    "EntropyGate",
    "Evidence",
    "Exact",
    "FitConfig",
    "FitForecast",
    "Fitted",
    "Fixed",
    "Fuzzy",
    "Generation",
    "Guard",
    "Heuristic",
    "Judge",
    "JudgeDecoder",
    "JudgeDecodingError",
    "JudgeHead",
    "JudgeHeadConfig",
    "KLJudge",
    "Lenience",
    "LoopGuard",
    "MarginRatio",
    "Mentored",
    "MentoredSimple",
    "MinProbability",
    "Options",
    "Overshoot",
    "Phase",
    "PromptLookup",
    "Relaxed",
    "Request",
    "Round",
    "RunningSurprise",
    "Sampler",
    "SamplingParams",
    "Seconds",
    "Stats",
    "StrictStart",
    "TokenBuffer",
    "TokenDetails",
    "TopK",
    "TrainingConfig",
    "TranslatingDraft",
    "Typical",
    "VerificationRule",
    "__version__",
    "available_rules",
    "custom_generate",
    "decode",
    "fit_head",
    "parse_guard",
    "parse_rule",
    "push_head",
    "read_cases",
    "save_head",
    "train_head",
    "write_card",
    "write_cases",
]

# Where each public name lives. They are imported on first use, so that the command line starts at once.
_HOMES = {
    "AnyOf": "judge_decoding.rules",
    "DraftRequest": "judge_decoding.decoding.drafters.base",
    "Block": "judge_decoding.rules",
    "Budget": "judge_decoding.decoding.guards",
    "Cascade": "judge_decoding.rules",
    "Case": "judge_decoding.data.cases",
    "Cause": "judge_decoding.core.rounds",
    "Chunk": "judge_decoding.decoding.answer",
    "Confident": "judge_decoding.decoding.lengths",
    "CostOptimal": "judge_decoding.decoding.lengths",
    "Draft": "judge_decoding.decoding.drafters.base",
    "DraftFunction": "judge_decoding.decoding.drafters.simple",
    "DraftLength": "judge_decoding.decoding.lengths",
    "DraftModel": "judge_decoding.decoding.drafters.model",
    "Drafter": "judge_decoding.decoding.drafters.base",
    "Ensemble": "judge_decoding.rules",
    "EntropyGate": "judge_decoding.rules",
    "Evidence": "judge_decoding.rules",
    "Exact": "judge_decoding.rules",
    "FitConfig": "judge_decoding.fit.config",
    "FitForecast": "judge_decoding.fit.pipeline",
    "Fitted": "judge_decoding.fit.pipeline",
    "Fixed": "judge_decoding.decoding.lengths",
    "Fuzzy": "judge_decoding.rules",
    "Generation": "judge_decoding.decoding.answer",
    "Guard": "judge_decoding.decoding.guards",
    "Heuristic": "judge_decoding.decoding.lengths",
    "Judge": "judge_decoding.rules",
    "JudgeDecoder": "judge_decoding.decoder",
    "JudgeDecodingError": "judge_decoding.errors",
    "JudgeHead": "judge_decoding.judge.head",
    "JudgeHeadConfig": "judge_decoding.judge.head",
    "KLJudge": "judge_decoding.rules",
    "Lenience": "judge_decoding.rules",
    "LoopGuard": "judge_decoding.decoding.guards",
    "MarginRatio": "judge_decoding.rules",
    "Mentored": "judge_decoding.rules",
    "MentoredSimple": "judge_decoding.rules",
    "MinProbability": "judge_decoding.rules",
    "Options": "judge_decoding.decoding.answer",
    "Overshoot": "judge_decoding.decoding.guards",
    "Phase": "judge_decoding.decoding.guards",
    "PromptLookup": "judge_decoding.decoding.drafters.simple",
    "Relaxed": "judge_decoding.rules",
    "Request": "judge_decoding.decoding.request",
    "Round": "judge_decoding.core.rounds",
    "RunningSurprise": "judge_decoding.rules",
    "Sampler": "judge_decoding.decoding.sampling",
    "SamplingParams": "judge_decoding.decoding.sampling",
    "Seconds": "judge_decoding.core.rounds",
    "Stats": "judge_decoding.core.rounds",
    "StrictStart": "judge_decoding.decoding.guards",
    "TokenDetails": "judge_decoding.core.rounds",
    "TokenBuffer": "judge_decoding.decoding.tokens",
    "TopK": "judge_decoding.rules",
    "TrainingConfig": "judge_decoding.training.options",
    "TranslatingDraft": "judge_decoding.decoding.drafters.translation",
    "Typical": "judge_decoding.rules",
    "VerificationRule": "judge_decoding.rules",
    "available_rules": "judge_decoding.rules",
    "custom_generate": "judge_decoding.integrations.transformers",
    "decode": "judge_decoding.decoding.loop",
    "fit_head": "judge_decoding.fit.pipeline",
    "parse_guard": "judge_decoding.decoding.guards",
    "parse_rule": "judge_decoding.rules",
    "push_head": "judge_decoding.report.card_files",
    "read_cases": "judge_decoding.data.cases",
    "save_head": "judge_decoding.report.card_files",
    "train_head": "judge_decoding.training.training",
    "write_card": "judge_decoding.report.card_files",
    "write_cases": "judge_decoding.data.cases",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any public name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
