"""Judge decoding: speculative decoding that keeps correct tokens, not only the target's own words."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judge_decoding.court.cases import Case, read_cases, write_cases
    from judge_decoding.decoding.decoder import Chunk, Generation, JudgeDecoder
    from judge_decoding.decoding.drafting import Draft, Drafter, PromptLookup
    from judge_decoding.decoding.loop import decode
    from judge_decoding.decoding.rounds import Cause, Round, Stats
    from judge_decoding.decoding.sampling import SamplingParams
    from judge_decoding.decoding.translation import TranslatingDraft
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.integrations.transformers import custom_generate
    from judge_decoding.judge.head import JudgeHead, JudgeHeadConfig
    from judge_decoding.judge.training import TrainingConfig, train_head
    from judge_decoding.rules import AnyOf, Evidence, Exact, Judge, MinProbability, TopK, VerificationRule

__version__ = "0.1.0"

__all__ = [
    "AnyOf",
    "Case",
    "Cause",
    "Chunk",
    "Draft",
    "Drafter",
    "Evidence",
    "Exact",
    "Generation",
    "Judge",
    "JudgeDecoder",
    "JudgeDecodingError",
    "JudgeHead",
    "JudgeHeadConfig",
    "MinProbability",
    "PromptLookup",
    "Round",
    "SamplingParams",
    "Stats",
    "TopK",
    "TrainingConfig",
    "TranslatingDraft",
    "VerificationRule",
    "__version__",
    "custom_generate",
    "decode",
    "read_cases",
    "train_head",
    "write_cases",
]

# Where each public name lives. They are imported on first use, so that the command line starts at once.
_HOMES = {
    "AnyOf": "judge_decoding.rules",
    "Case": "judge_decoding.court.cases",
    "Cause": "judge_decoding.decoding.rounds",
    "Chunk": "judge_decoding.decoding.decoder",
    "Draft": "judge_decoding.decoding.drafting",
    "Drafter": "judge_decoding.decoding.drafting",
    "Evidence": "judge_decoding.rules",
    "Exact": "judge_decoding.rules",
    "Generation": "judge_decoding.decoding.decoder",
    "Judge": "judge_decoding.rules",
    "JudgeDecoder": "judge_decoding.decoding.decoder",
    "JudgeDecodingError": "judge_decoding.errors",
    "JudgeHead": "judge_decoding.judge.head",
    "JudgeHeadConfig": "judge_decoding.judge.head",
    "MinProbability": "judge_decoding.rules",
    "PromptLookup": "judge_decoding.decoding.drafting",
    "Round": "judge_decoding.decoding.rounds",
    "SamplingParams": "judge_decoding.decoding.sampling",
    "Stats": "judge_decoding.decoding.rounds",
    "TopK": "judge_decoding.rules",
    "TrainingConfig": "judge_decoding.judge.training",
    "TranslatingDraft": "judge_decoding.decoding.translation",
    "VerificationRule": "judge_decoding.rules",
    "custom_generate": "judge_decoding.integrations.transformers",
    "decode": "judge_decoding.decoding.loop",
    "read_cases": "judge_decoding.court.cases",
    "train_head": "judge_decoding.judge.training",
    "write_cases": "judge_decoding.court.cases",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any public name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
