"""Training a judge: labelled answers in, a linear head out.

The recipe is the paper's (section 4): target frozen, one linear layer on its last hidden state at every answer
token, binary cross-entropy weighted against the class imbalance, a few hundred answers.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.progress import StageProgress
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.data.cases import Case
from judge_decoding.data.leaks import same_question
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.familiarity import Familiarity
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import shape, target_info
from judge_decoding.models.abilities import as_causal_lm
from judge_decoding.models.context import context_length
from judge_decoding.models.forward import input_rows
from judge_decoding.models.hidden import decoder_layer
from judge_decoding.models.tokenize import check_offsets, end_ids
from judge_decoding.training.calibration import expected_calibration_error, reliability, roc
from judge_decoding.training.comparison import (
    SHARES,
    FittedSource,
    LabelledTokens,
    candidate,
    doubts,
    learning_curve,
    log_candidate,
    measures,
)
from judge_decoding.training.features import BASELINES, Column, FeatureCache
from judge_decoding.training.fitting import deal, fold, standardise
from judge_decoding.training.labels import IGNORED, Example, data_hash, encode, question_examples
from judge_decoding.training.options import TrainingConfig

OUT_OF_FOLD = (
    "each token's score is that of a fit on the other folds' questions; the weights in this folder are fitted on all"
)


def train_head(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    config: TrainingConfig | None = None,
    *,
    draft: PreTrainedModel | None = None,
    prompts: Iterable[str] = (),
    cache: str | Path | None = None,
    progress: StageProgress | None = None,
    logger: Logger | None = None,
) -> JudgeHead:
    """Train a judge head for ``target`` on labelled answers.

    Cross-validation over questions chooses the weight decay, the source and the threshold, and gives all figures; the
    head is then fitted on all cases. Reasons to doubt it, such as too little data, are in ``config.calibration`` of the
    head under "warnings".

    Args:
        target: the frozen target model.
        tokenizer: its tokenizer, which must be a fast one (character offsets are needed).
        cases: labelled answers, with and without errors.
        config: how to train.
        draft: a draft model of the same vocabulary, for a head that also reads the draft's last hidden states
            (AutoJudge's features); such a head works with this draft only.
        prompts: whole prompts beside the questions of the cases that the head is meant for, such as those whose answers
            gave no case; they count in the distance of a prompt to the training questions, see `Familiarity`.
        cache: a folder for what the models compute over the answers, so that several trainings read them only once and
            a stopped one resumes. The default is a temporary folder.
        progress: called as the training advances; see `StageProgress`.
        logger: receives, for each source, the log-loss of each weight decay, the AUC in each fold and the figures out
            of fold, then the learning curve; see `log_to`.

    Raises:
        JudgeDecodingError: no cases, cases of one verdict only, a case longer than a model's context, a layer that does
            not exist, or a tokenizer that has no offsets or belongs to another model.
    """
    config, report = config or TrainingConfig(), progress or (lambda _what, _done, _total: None)
    target, draft = as_causal_lm(target), None if draft is None else as_causal_lm(draft, "draft")
    _check_cases(cases, tokenizer)
    ends = end_ids(target, tokenizer)
    examples = [encode(case, tokenizer, config.labels, config.after_error, ends) for case in cases]
    models = {"target": target} if draft is None else {"draft": draft, "target": target}
    for role, model in models.items():
        _check_readable(role, model, examples)
    sources = config.sources
    for source in sources:
        if source.layer < -1:
            decoder_layer(target, source.layer)
    tokens, used = _tokens(cases, examples, config)
    with _features(models, examples, used, config, cache, report) as (load, target_states):
        best, rows = _best(load, tokens, config, report, logger)
        asked = chain((case.question for case in cases), prompts)
        questions = target_states(question_examples(asked, tokenizer), best.source)
        features = load(best.source)
        standardise(features)
        tick = ticks(report, "learning curve", len(SHARES) * len(config.l2))
        curve = learning_curve(features, tokens, config, best.row["auc"], tick)
    for row in curve:
        log_fields(logger, "learning_curve", row)
    head = JudgeHead(
        JudgeHeadConfig(
            target=target_info(target, best.source),
            draft=None if draft is None else target_info(draft, HiddenSource(-1, best.source.norm)),
            layer=best.source.layer,
            norm=best.source.norm,
            labels=config.reading,
            threshold=min(best.row["threshold"], 1.0),
            data={
                "cases": len(cases),
                "with_errors": sum(bool(case.errors) for case in cases),
                "questions": tokens.questions,
                "tokens": len(tokens.labels),
                "wrong_tokens": int((tokens.labels == 0).sum()),
                "sha256": data_hash(cases),
            },
            calibration=_calibration(best, rows, curve, tokens, config),
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        )
    )
    weight, bias = fold(best.fit.solution, best.mean, best.scale)
    head.linear.weight.copy_(weight[None])
    head.linear.bias.fill_(bias)
    head.set_familiarity(Familiarity.fit(questions))
    head.store_scores(target)
    return head


def _check_cases(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase) -> None:
    if not cases:
        raise JudgeDecodingError("The data set has no cases; a judge needs answers with and without located errors.")
    check_offsets(tokenizer)
    unlocated = sum(not case.located for case in cases)
    if unlocated:
        raise JudgeDecodingError(
            f"{unlocated} of the {len(cases)} cases are known to be wrong, but not where; locate their errors "
            "(judge-decoding court label) or remove them."
        )


def _check_readable(role: str, model: PreTrainedModel, examples: Sequence[Example]) -> None:
    last = input_rows(model) - 1
    context = context_length(model)
    for number, example in enumerate(examples, start=1):
        if context is not None and len(example.ids) > context:
            raise JudgeDecodingError(
                f"Case {number} has {len(example.ids)} tokens and the {role}'s context is {context}; "
                "shorten or remove it."
            )
        if max(example.ids, default=0) > last:
            raise JudgeDecodingError(
                f"Case {number} has token id {max(example.ids)}, but the {role}'s ids are 0 to {last}; "
                f"use the target's own tokenizer{'' if role == 'target' else ', and a draft that shares it'}."
            )


def _tokens(
    cases: Sequence[Case], examples: Sequence[Example], config: TrainingConfig
) -> tuple[LabelledTokens, list[Tensor]]:
    """All training tokens, and for each example which of its judged tokens are among them (bool [n_i])."""
    labels, numbers, questions, used = [], [], list[str](), []
    for case, example in zip(cases, examples, strict=True):
        judged = torch.tensor(example.judged, dtype=torch.long)
        label = torch.tensor(example.labels, dtype=torch.long)[judged]
        used.append(label != IGNORED)
        labels.append(label[used[-1]])
        numbers.append(torch.tensor(example.numbers, dtype=torch.bool)[judged][used[-1]])
        questions += [same_question(case.question)] * len(labels[-1])
    label = torch.cat(labels)
    folds, rank = deal(questions, label, config.folds, config.seed)
    wrong = {question for question, one in zip(questions, label.tolist(), strict=True) if not one}
    return LabelledTokens(label, torch.cat(numbers), folds, rank, len(set(questions)), len(wrong)), used


@contextmanager
def _features(
    models: Mapping[str, PreTrainedModel],
    examples: Sequence[Example],
    used: Sequence[Tensor],
    config: TrainingConfig,
    cache: str | Path | None,
    report: StageProgress,
) -> Iterator[tuple[Callable[[Column], Tensor], Callable[[Sequence[Example], HiddenSource], Tensor]]]:
    """Read the answers and provide functions that return their features.

    The first function returns a column's values at all used tokens, float32 [N, H] or [N]; the second one the target's
    hidden states [n, H] at the only judged token of each of other examples.
    """
    with tempfile.TemporaryDirectory(prefix="judge-decoding-") as temporary:
        folder = Path(cache) if cache is not None else Path(temporary)
        caches, count = {}, ticks(report, "reading the answers", len(examples) * len(models))
        for role, model in models.items():
            columns: list[Column] = _own(role, config.sources)
            if role == "target" and config.compares:
                columns += BASELINES
            caches[role] = FeatureCache(folder, model)
            caches[role].add(examples, columns, progress=count)
        sizes = {role: int(shape(model)["hidden_size"]) for role, model in models.items()}
        number = sum(int(chosen.sum()) for chosen in used)

        def load(column: Column) -> Tensor:
            if not isinstance(column, HiddenSource):
                out = torch.empty(number)
                caches["target"].fill(out, column, examples, used)
                return out
            out, begin = torch.empty(number, sum(sizes.values())), 0
            for role, size in sizes.items():
                caches[role].fill(out[:, begin : begin + size], _own(role, [column])[0], examples, used)
                begin += size
            return out

        def target_states(others: Sequence[Example], source: HiddenSource) -> Tensor:
            out = torch.empty(len(others), sizes["target"])
            caches["target"].add(others, [source], progress=ticks(report, "reading the questions", len(others)))
            caches["target"].fill(out, source, others, [torch.tensor([True])] * len(others))
            return out

        yield load, target_states


def _own(role: str, sources: Sequence[HiddenSource]) -> list[Column]:
    """The sources to read in a model for these sources in the target; a draft is always read at its last layer."""
    return list(dict.fromkeys(source if role == "target" else HiddenSource(-1, source.norm) for source in sources))


def _best(
    load: Callable[[Column], Tensor],
    tokens: LabelledTokens,
    config: TrainingConfig,
    report: StageProgress,
    logger: Logger | None,
) -> tuple[FittedSource, list[dict[str, Any]]]:
    """The source with the best AUC out of fold, and the table of all detectors."""
    sources = config.sources
    tick = ticks(report, "fitting", len(sources) * len(config.l2))
    best: FittedSource | None = None
    rows = []
    for source in sources:
        one = candidate(source, load(source), tokens, config, tick)
        rows.append(one.row)
        log_candidate(logger, one, tokens)
        if best is None or one.row["auc"] > best.row["auc"]:
            best = one
    assert best is not None
    rows = [row | {"shipped": row is best.row} for row in rows]
    for name in BASELINES if config.compares else ():
        rows.append({"detector": name} | measures(load(name), tokens, config.goal) | {"shipped": False})
    return best, rows


def ticks(progress: StageProgress, what: str, total: int, done: int = 0) -> Callable[..., None]:
    """Return a function that reports one more unit of a stage, or so many, as done; the start is reported at once."""
    progress(what, done, total)

    def tick(more: int = 1) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return tick


def _calibration(
    best: FittedSource,
    rows: list[dict[str, Any]],
    curve: list[dict[str, Any]],
    tokens: LabelledTokens,
    config: TrainingConfig,
) -> dict[str, Any]:
    """All figures of the head, for its configuration and its card."""
    scores, correct = best.fit.scores, tokens.labels.bool()
    names = ("threshold", "auc", "auc_numbers", "log_loss", "kept_correct", "caught_wrong")
    return {
        "aim": config.aim,
        **{name: best.row[name] for name in names},
        "ece": expected_calibration_error(scores, correct),
        "l2": best.fit.l2,
        "class_weights": config.class_weights,
        "wrong_weight": config.wrong_weight,
        "folds": int(tokens.fold.max()) + 1,
        "seed": config.seed,
        "out_of_fold": OUT_OF_FOLD,
        "warnings": doubts(tokens, curve),
        "comparison": rows if len(rows) > 1 else [],
        "learning_curve": curve,
        "reliability": reliability(scores, correct),
        "roc": roc(scores, correct),
    }
