"""Training a judge: labelled answers in, a linear head out.

The recipe is the paper's (section 4): target frozen, one linear layer on its last hidden state at every answer
token, binary cross-entropy weighted against the class imbalance, a few hundred answers.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import transformers
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.court.cases import Case
from judge_decoding.court.tokens import check_tokens
from judge_decoding.decoding.models import Norm
from judge_decoding.decoding.text import pieces
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.calibration import auc, expected_calibration_error, threshold_for_recall
from judge_decoding.judge.familiarity import Familiarity, question_states
from judge_decoding.judge.features import hidden_states
from judge_decoding.judge.head import JudgeHead, JudgeHeadConfig, TargetInfo

AfterError = Literal["correct", "ignore", "wrong"]
"""What the tokens after the first error of an answer count as. The paper can be read as the first or the last."""

IGNORED = -1


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a head is trained.

    Attributes:
        norm: take hidden states before or after the target's final norm.
        after_error: label of the tokens after the error.
        l2: weight decays to try on standardised features; the best on the held-out cases is taken.
        holdout: share of the questions held out to choose ``l2`` and the threshold by.
        recall: share of the held-out wrong tokens the threshold must reject.
        seed: of the holdout.
    """

    norm: Norm = "before"
    after_error: AfterError = "wrong"
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    holdout: float = 0.2
    recall: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("norm", get_args(Norm)), ("after_error", get_args(AfterError))):
            if getattr(self, name) not in allowed:
                raise JudgeDecodingError(f"{name} is {getattr(self, name)}; it must be one of {', '.join(allowed)}.")
        if not 0 < self.holdout < 1:
            raise JudgeDecodingError(f"holdout is {self.holdout}; it must be between 0 and 1.")
        if not 0 < self.recall <= 1:
            raise JudgeDecodingError(f"recall is {self.recall}; it must be above 0 and at most 1.")
        if not self.l2 or min(self.l2) < 0:
            raise JudgeDecodingError(f"l2 is {self.l2}; it must be one or more numbers of 0 or more.")


@dataclass(frozen=True, slots=True)
class Example:
    """A case as token ids; ``labels`` has 1 (correct), 0 (wrong) or -1 (not used) for every token."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def encode(case: Case, tokenizer: PreTrainedTokenizerBase, after_error: AfterError) -> Example:
    """Token ids and labels of a case: question tokens unused, a token that touches an error span wrong.

    Where a case says which parts are judged, tokens that touch none of them are unused.
    """
    if case.token_ids is not None:
        return _encode_ids(case, tokenizer, after_error)
    text = case.question + case.answer
    # A rendered chat has its begin token already, and is read as in decoding: with that one only.
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=not begun)
    ids, start = list(encoding["input_ids"]), len(case.question)
    labels = []
    for begin, end in encoding["offset_mapping"]:
        if end <= start or begin == end:  # of the question, or a special token without text
            labels.append(IGNORED)
        else:
            labels.append(_label(begin - start, end - start, case, after_error))
    if case.ended and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        stop = len(case.answer)
        labels.append(_label(stop, stop + 1, case, after_error))
    return Example(tuple(ids), tuple(labels))


def _encode_ids(case: Case, tokenizer: PreTrainedTokenizerBase, after_error: AfterError) -> Example:
    """The same of a case that has its tokens; the answer is what its last tokens spell."""
    check_tokens(case, tokenizer)
    assert case.token_ids is not None
    texts = pieces(tokenizer, case.token_ids)
    begin, labels = len(case.answer) - len("".join(texts)), []
    for text in texts:
        end = begin + len(text)
        labels.append(IGNORED if end <= 0 or begin == end else _label(begin, end, case, after_error))
        begin = end
    if case.ended and case.token_ids[-1:] == (tokenizer.eos_token_id,):
        labels[-1] = _label(begin, begin + 1, case, after_error)
    return Example(case.token_ids, tuple(labels))


def _label(begin: int, end: int, case: Case, after_error: AfterError) -> int:
    if case.judged is not None and not _touches(begin, end, case.judged):
        return IGNORED
    if _touches(begin, end, case.errors):
        return 0
    first = min((start for start, _ in case.errors), default=None)
    if first is not None and begin > first:
        return {"correct": 1, "ignore": IGNORED, "wrong": 0}[after_error]
    return 1


def _touches(begin: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    # An empty span at the end of the answer says that it should not have ended there.
    return any(begin < max(stop, start + 1) and end > start for start, stop in spans)


def fit_linear(features: Tensor, labels: Tensor, l2: float, *, steps: int = 200) -> tuple[Tensor, float]:
    """Weighted logistic regression on ``features`` [N, H] and ``labels`` [N] of 0 and 1: weight [H] and bias.

    Both classes weigh the same in sum. Features are standardised inside and the scaling folded into the result.
    """
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-6)
    x, y = (features - mean) / scale, labels.float()
    share = y.mean()
    sample_weight = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))
    weight = torch.zeros(x.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(x @ weight + bias, y, sample_weight) + l2 * weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    folded = weight.detach() / scale
    return folded, float(bias.detach() - folded @ mean)


def train_head(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    config: TrainingConfig | None = None,
    *,
    draft: PreTrainedModel | None = None,
    progress: Callable[[int], None] | None = None,
) -> JudgeHead:
    """Train a judge head for ``target`` on labelled answers.

    Held-out questions choose the weight decay and the threshold; the head is then fitted on all cases.

    Args:
        target: the frozen target model.
        tokenizer: its tokenizer, a fast one (character offsets are needed).
        cases: labelled answers, with and without errors.
        config: how to train.
        draft: a draft model of the same vocabulary, for a head that reads its hidden states too (AutoJudge's
            features); such a head works with this draft only.
        progress: told the number of cases as they are read, by each model.

    Raises:
        JudgeDecodingError: no cases, cases of one verdict only, a case longer than a model's context, or a
            tokenizer without offsets or for another model.
    """
    config = config or TrainingConfig()
    if not cases:
        raise JudgeDecodingError("The data set has no cases; a judge needs answers with and without located errors.")
    if not tokenizer.is_fast:
        raise JudgeDecodingError(
            f"{type(tokenizer).__name__} gives no character offsets; use the fast tokenizer of this model."
        )
    unlocated = sum(not case.located for case in cases)
    if unlocated:
        raise JudgeDecodingError(
            f"{unlocated} of the {len(cases)} cases are known to be wrong, but not where; locate their errors "
            "(judge-decoding court label) or remove them."
        )
    examples = [encode(case, tokenizer, config.after_error) for case in cases]
    models = {"target": target} if draft is None else {"draft": draft, "target": target}
    for role, model in models.items():
        _check_readable(role, model, examples)
    sequences = [example.ids for example in examples]
    read = [hidden_states(model, sequences, config.norm, progress=progress) for model in models.values()]
    states = [torch.cat(parts, -1) for parts in zip(*read, strict=True)]
    features, labels, held = _tokens(cases, examples, states, config)
    fitted, figures = _fit(features, labels, held, config)
    head = JudgeHead(
        JudgeHeadConfig(
            target=TargetInfo.of(target),
            draft=None if draft is None else TargetInfo.of(draft),
            norm=config.norm,
            labels=f"after the error: {config.after_error}",
            threshold=figures["threshold"],
            data={
                "cases": len(cases),
                "with_errors": sum(bool(case.errors) for case in cases),
                "tokens": len(labels),
                "wrong_tokens": int((labels == 0).sum()),
                "sha256": data_hash(cases),
            },
            calibration=figures,
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        )
    )
    head.linear.weight.copy_(fitted[0][None])
    head.linear.bias.fill_(fitted[1])
    head.know(Familiarity.fit(question_states(cases, sequences, read[-1], tokenizer)))
    return head


def _check_readable(role: str, model: PreTrainedModel, examples: Sequence[Example]) -> None:
    last = model.get_input_embeddings().get_parameter("weight").shape[0] - 1
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for number, example in enumerate(examples, start=1):
        if context and len(example.ids) > context:
            raise JudgeDecodingError(
                f"Case {number} has {len(example.ids)} tokens and the {role}'s context is {context}; "
                "shorten or remove it."
            )
        if max(example.ids, default=0) > last:
            raise JudgeDecodingError(
                f"Case {number} has token id {max(example.ids)}, but the {role} knows 0 to {last}; "
                f"use the target's own tokenizer{'' if role == 'target' else ', and a draft that shares it'}."
            )


def data_hash(cases: Sequence[Case]) -> str:
    """Hash of what a head learns from: questions, answers, error spans, and what else tells the labels."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.question, case.answer, case.ended, case.errors)).encode())
        if case.judged is not None or case.token_ids is not None:
            digest.update(repr((case.judged, case.token_ids)).encode())
    return digest.hexdigest()


def _tokens(
    cases: Sequence[Case], examples: Sequence[Example], states: Sequence[Tensor], config: TrainingConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """All used tokens: features [N, H], labels [N], and whether their question is held out [N]."""
    features, labels, held = [], [], []
    for case, example, state in zip(cases, examples, states, strict=True):
        label = torch.tensor(example.labels)
        used = label != IGNORED
        # By question, so that the two answers to one question are on the same side.
        digest = hashlib.sha256(f"{config.seed} {case.question}".encode()).digest()
        out = int.from_bytes(digest[:4], "big") / 2**32 < config.holdout
        features.append(state[used])
        labels.append(label[used])
        held.append(torch.full((int(used.sum()),), out))
    return torch.cat(features), torch.cat(labels), torch.cat(held)


def _fit(
    features: Tensor, labels: Tensor, held: Tensor, config: TrainingConfig
) -> tuple[tuple[Tensor, float], dict[str, Any]]:
    for part, name in ((labels[held], "held-out"), (labels[~held], "remaining")):
        if part.unique().numel() < 2:
            raise JudgeDecodingError(
                f"The {name} cases do not have both correct and wrong tokens; "
                "add cases with and without located errors."
            )
    best: tuple[float, float, Tensor] | None = None
    for l2 in config.l2:
        weight, bias = fit_linear(features[~held], labels[~held], l2)
        scores = torch.sigmoid(features[held] @ weight + bias)
        quality = auc(scores, labels[held])
        if best is None or quality > best[0]:
            best = (quality, l2, scores)
    assert best is not None
    quality, l2, scores = best
    threshold = min(threshold_for_recall(scores, labels[held], config.recall), 1.0)
    correct = labels[held].bool()
    return fit_linear(features, labels, l2), {
        "threshold": threshold,
        "rule": f"{config.recall:.0%} of the held-out wrong tokens rejected",
        "l2": l2,
        "held_out_tokens": int(held.sum()),
        "held_out_wrong_tokens": int((~correct).sum()),
        "auc": quality,
        "ece": expected_calibration_error(scores, correct),
        "kept_correct": float((scores[correct] > threshold).float().mean()),
    }
