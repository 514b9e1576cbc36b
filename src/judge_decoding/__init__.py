"""Judge decoding: speculative decoding that keeps correct tokens, not only the target's own words."""

from judge_decoding.court.cases import Case, read_cases, write_cases
from judge_decoding.decoding.decoder import Chunk, Generation, JudgeDecoder
from judge_decoding.decoding.drafting import Draft, Drafter, PromptLookup
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.rounds import Cause, Round, Stats
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
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
    "VerificationRule",
    "__version__",
    "decode",
    "read_cases",
    "train_head",
    "write_cases",
]
