"""Settings derived from a target, a draft and a judge: rule, drafter, draft length, and room for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from transformers import PreTrainedModel

from judge_decoding.bounds import check_bound
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.drafters.simple import DraftFunction
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.models.abilities import as_causal_lm
from judge_decoding.models.context import context_length
from judge_decoding.models.hidden import output_size
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.exact import Exact
from judge_decoding.rules.judge import Judge
from judge_decoding.rules.spelling import as_rule

DEFAULT_NUM_DRAFT_TOKENS = 16

AnyDraft = PreTrainedModel | Drafter | Callable[[list[int], int], Sequence[int]]
"""A draft model, any drafter, or a function from the ids so far and a count to the ids it proposes."""


def choose_rule(
    judge: JudgeHead | None, rule: VerificationRule | str | None, threshold: float | None
) -> VerificationRule:
    """Return the given rule or the rule of the given spelling, else the judge's, else `Exact`."""
    if rule is not None:
        if threshold is not None:
            raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")
        return as_rule(rule, judge)
    if judge is not None:
        return Judge(judge, threshold)
    if threshold is not None:
        raise JudgeDecodingError("A threshold needs a judge; give a judge head, or leave the threshold out.")
    return Exact()


def choose_num_draft_tokens(judge: JudgeHead | None, given: int | None) -> int:
    """Return the given draft length, else the judge's own, else 16."""
    own = judge.config.num_draft_tokens if judge is not None else None
    count = given if given is not None else own or DEFAULT_NUM_DRAFT_TOKENS
    check_bound("num_draft_tokens", count)
    return count


def unwrap_draft(draft: AnyDraft | None) -> AnyDraft | None:
    """Return the user's draft; a model is freed of its wrappers (``torch.compile``, peft, ...)."""
    return as_causal_lm(draft, "draft") if isinstance(draft, nn.Module) and not isinstance(draft, Drafter) else draft


def as_drafter(draft: AnyDraft | None, target: PreTrainedModel) -> Drafter | None:
    """Return the drafter for one decoding; it is not shared, as a draft model's KV cache belongs to its rows."""
    if isinstance(draft, PreTrainedModel):
        return DraftModel(draft, output_size(target))
    return draft if draft is None or isinstance(draft, Drafter) else DraftFunction(draft)


def remaining_context(length: int, target: PreTrainedModel) -> int:
    """Return how many tokens may follow a prompt of ``length`` tokens before the target's context is full."""
    context = context_length(target)
    if context is None:
        return 2**31
    if length >= context:
        raise JudgeDecodingError(
            f"The prompt has {length} tokens and the target's context is {context}; shorten the prompt."
        )
    return context - length
