"""Use a saved head's own folder as ``custom_generate``.

The folder contains no code except an import of `generate_with_head`, so it always uses the installed package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import (
    GenerationMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from judge_decoding.decoding.choices import AnyDraft
from judge_decoding.decoding.guards import Guard, check_guards, parse_guard
from judge_decoding.decoding.lengths import POLICIES, DraftLength, Fixed
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.transformers import JudgedOutput, arguments_of_generate, custom_generate
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import as_draft, load_tokenizer
from judge_decoding.models.tokenize import bare_ids
from judge_decoding.names import is_drafter
from judge_decoding.rules import VerificationRule

_OPTIONS = ("threshold", "num_draft_tokens", "seed", "on_round")


def generate_with_head(
    model: PreTrainedModel,
    *,
    draft: str | Path | AnyDraft | None = None,
    assistant_model: PreTrainedModel | None = None,
    judge: str | Path | JudgeHead | None = None,
    translate: bool = False,
    draft_kwargs: Mapping[str, Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    rule: str | VerificationRule | None = None,
    guards: str | Sequence[str | Guard] = (),
    draft_length: str | Callable[[int], DraftLength] = Fixed,
    stop_strings: str | list[str] | None = None,
    stopping_criteria: Sequence[StoppingCriteria] | None = None,
    **arguments: Any,  # noqa: ANN401  (those of generate)
) -> Tensor | JudgedOutput:
    """Decode with the head in the folder that was passed to ``generate`` as ``custom_generate``.

    Args:
        model: the target.
        draft: as for `custom_generate`, or the Hub name or folder of a draft model, or "prompt-lookup", or "reference".
            A model loaded by name stays loaded for later calls.
        assistant_model: the draft model, under transformers' name for it.
        judge: another head: its folder or Hub name, or the head itself.
        translate: whether a draft loaded by name may have another vocabulary; see `TranslatingDraft`.
        draft_kwargs: options of ``from_pretrained`` for a draft loaded by name; it uses the target's device and dtype.
        tokenizer: the target's tokenizer, for ``stop_strings``, guards with texts and a draft loaded by name; by
            default loaded by the model's name.
        rule: as for `custom_generate`, or its spelling, such as "top_k(k=4)".
        guards: as for `custom_generate`, or their spellings, such as "strict_start(tokens=8)".
        draft_length: as for `custom_generate`, or "fixed", "heuristic", "confident" or "cost_optimal".
        stop_strings: as in ``generate``.
        stopping_criteria: as in ``generate``.
        arguments: all other arguments of ``generate`` and `custom_generate`.

    Raises:
        JudgeDecodingError: as for `custom_generate`; or something cannot be loaded, or there is no draft, or two.
    """
    judge = arguments_of_generate().get("custom_generate") if judge is None else judge
    if judge is None:
        raise JudgeDecodingError("There is no judge head here; give its folder or Hub name as judge.")
    head = judge if isinstance(judge, JudgeHead) else JudgeHead.from_pretrained(judge)
    if (draft is None) == (assistant_model is None):
        raise JudgeDecodingError('Judge decoding needs one draft; give a model, its name or "prompt-lookup" as draft.')
    if isinstance(draft_length, str) and draft_length not in POLICIES:
        raise JudgeDecodingError(
            f"There is no draft-length policy {draft_length}; the policies are {', '.join(POLICIES)}."
        )

    def its_tokenizer() -> PreTrainedTokenizerBase:
        """Load the tokenizer only where it is needed."""
        return _load_tokenizer(model.config.name_or_path) if tokenizer is None else tokenizer

    drafter = assistant_model if draft is None else draft
    if isinstance(drafter, str | Path):
        usual = {"device": str(model.device), "dtype": model.dtype}
        drafter = _draft(drafter, its_tokenizer, translate, usual, draft_kwargs)
    criteria = StoppingCriteriaList(stopping_criteria or [])
    if stop_strings:
        criteria.append(StopStringCriteria(its_tokenizer(), stop_strings))
    method = custom_generate(
        drafter, head,
        rule,
        guards=check_guards(
            [parse_guard(g) if isinstance(g, str) else g for g in ([guards] if isinstance(guards, str) else guards)],
            lambda text: bare_ids(text, its_tokenizer()),
        ),
        draft_length=POLICIES[draft_length] if isinstance(draft_length, str) else draft_length,
        **{name: arguments.pop(name) for name in _OPTIONS if name in arguments},
    )  # fmt: skip
    # Call the class's generate: the model's own may be the one that called this function.
    generate = cast(Callable[..., Tensor | JudgedOutput], GenerationMixin.generate)
    return generate(model, custom_generate=method, stopping_criteria=criteria, **arguments)


@lru_cache(maxsize=1)
def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    if not name:
        raise JudgeDecodingError("The model does not name its tokenizer; pass it as tokenizer.")
    return load_tokenizer(name)


_kept: list[tuple[tuple[object, ...], AnyDraft | None]] = []
"""The most recently loaded draft, with the settings it was loaded for."""


def _draft(
    name: str | Path,
    tokenizer: Callable[[], PreTrainedTokenizerBase],
    translate: bool,
    usual: Mapping[str, Any],
    own: Mapping[str, Any] | None,
) -> AnyDraft | None:
    """Load a draft by name, or return it if it is already loaded."""
    used = None if is_drafter(name) else tokenizer()
    wanted = (name, used, translate, dict(usual), dict(own or {}))
    if not _kept or _kept[0][0] != wanted:
        _kept[:] = []  # free the old draft's memory before loading the new one
        _kept.append((wanted, as_draft(name, tokenizer, translate=translate, draft_kwargs=own, **usual)))
    return _kept[0][1]
