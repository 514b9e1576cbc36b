"""Judge decoding in the lm-evaluation-harness: the model class ``judge``.

The harness finds no models of other packages by itself, so this module has to be imported first: ``judge-decoding
lm-eval`` does, and runs the harness's own command line. In Python::

    import judge_decoding.integrations.lm_eval
    from lm_eval import simple_evaluate

    simple_evaluate(model="judge", model_args={"pretrained": "TARGET", "draft": "DRAFT", "judge": "HEAD"}, tasks=[...])
"""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.choices import choose_num_draft_tokens, choose_rule
from judge_decoding.decoding.drafting import PromptLookup
from judge_decoding.decoding.loading import cannot_load, load_draft
from judge_decoding.decoding.rounds import Stats
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.transformers import custom_generate
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules import parse_rule
from judge_decoding.spelling import guess

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise JudgeDecodingError(
        f"The lm-evaluation-harness is not here ({error.name} is missing); install it with: "
        "pip install 'judge-decoding[eval]'."
    ) from error

_LOG = logging.getLogger("lm_eval.judge_decoding")  # the harness shows what is logged below its own name


@register_model("judge")
class JudgeLM(HFLM):  # type: ignore[misc]  # the harness has no types
    """The harness's ``hf`` model, its texts written by judge decoding.

    What generates (``generate_until``) goes through the draft and the rule, a batch's rows each as they would alone.
    The counts of all of it are in the results under ``config`` / ``judge_decoding``. Tasks that score given answers
    (``loglikelihood``, as most multiple-choice ones) run as in ``hf``: no token is drafted there, and no rule asked.

    Args:
        pretrained: Hub name or folder of the target, or the model itself.
        draft: the same of a draft model, or "prompt-lookup".
        judge: folder or Hub repository of a judge head; without one verification is exact.
        rule: spelling of a verification rule instead of the judge, such as "top_k(k=4)".
        threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
        num_draft_tokens: draft length M; by default the head's own best one, or 16.
        translate: the draft may have another vocabulary; see `TranslatingDraft`.
        arguments: all others of ``hf`` (``dtype``, ``device``, ``batch_size``, ...).

    Raises:
        JudgeDecodingError: no draft, one with another vocabulary, a head or model that cannot be loaded or do not
            belong together, an unknown rule or argument, a value out of range, several processes.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        draft: str | Path | None = None,
        judge: str | Path | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        num_draft_tokens: int | None = None,
        translate: bool = False,
        **arguments: Any,  # noqa: ANN401  (those of hf)
    ) -> None:
        if draft is None:
            raise JudgeDecodingError(
                'The model judge needs a draft; give the draft model\'s name or "prompt-lookup" as draft, or use the '
                "model hf."
            )
        # What is wrong with these shows before a model is loaded. The harness makes numbers of what looks like some.
        for name, value, kind, wanted in (
            ("draft", draft, str | Path, "a name or folder"), ("judge", judge, str | Path, "a name or folder"),
            ("rule", rule, str, "a text"), ("threshold", threshold, int | float, "a number"),
            ("num_draft_tokens", num_draft_tokens, int, "a whole number"),
            ("translate", translate, bool, "True or False"),
        ):  # fmt: skip
            if value is not None and not isinstance(value, kind):
                raise JudgeDecodingError(f"The model argument {name} is {value!r}; it must be {wanted}.")
        head = None if judge is None else JudgeHead.from_pretrained(judge)
        self._rule = choose_rule(head, None if rule is None else parse_rule(rule, head), threshold)
        self._num_draft_tokens = choose_num_draft_tokens(head, num_draft_tokens)
        try:
            super().__init__(pretrained, **arguments)
        except (OSError, SafetensorError) as error:
            raise cannot_load("model", str(pretrained), error) from error
        except TypeError as error:  # the harness hands on what it does not know, as far as the model's class
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in arguments:
                raise
            names = [*inspect.signature(JudgeLM).parameters, *inspect.signature(HFLM).parameters]
            raise JudgeDecodingError(
                f"There is no model argument {unknown[1]}{guess(unknown[1], names)}; the model judge takes draft, "
                "judge, rule, threshold, num_draft_tokens, translate and what hf takes."
            ) from error
        if self.world_size > 1:
            raise JudgeDecodingError(
                "The model judge runs in one process, and there are several; start it without accelerate or torchrun, "
                "and use parallelize=True for a target over several GPUs."
            )
        drafter = (
            PromptLookup()
            if draft == "prompt-lookup"
            else load_draft(
                str(draft), self.tokenizer, translate=translate, device=str(self.model.device), dtype=self.model.dtype
            )
        )
        if head is not None:
            head.check_fits(self.model, drafter if isinstance(drafter, PreTrainedModel) else None)
        self._method = custom_generate(drafter, head, self._rule, num_draft_tokens=self._num_draft_tokens)
        self._draft, self._judge, self.stats = str(draft), str(judge or ""), Stats()

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:  # noqa: ANN401
        """As in ``hf``: the prompts [B, T] with their answers."""
        generated: Tensor = super()._model_generate(
            context, max_length, stop, custom_generate=self._method, **generation_kwargs
        )
        self.stats.merge(self._method.stats)
        return generated

    def loglikelihood(self, *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:  # noqa: ANN401
        """As in ``hf``, with a warning."""
        self._warn()
        scores: list[tuple[float, bool]] = super().loglikelihood(*args, **kwargs)
        return scores

    def loglikelihood_rolling(self, *args: Any, **kwargs: Any) -> list[float]:  # noqa: ANN401
        """As in ``hf``, with a warning."""
        self._warn()
        scores: list[float] = super().loglikelihood_rolling(*args, **kwargs)
        return scores

    def _warn(self) -> None:
        _LOG.warning(
            "Some of these tasks score given answers and generate nothing (loglikelihood): they run as with the model "
            "hf, whatever the draft, the judge and the rule; choose tasks that generate to measure these."
        )

    def get_model_info(self) -> dict[str, Any]:
        """As in ``hf``, and how it was decoded: the harness asks after the run, and puts it into the results."""
        _LOG.info(
            "%s: %d tokens in %d rounds, %.2f per target forward, %.2f accepted draft tokens per round",
            self._rule, self.stats.tokens, self.stats.rounds, self.stats.tokens_per_forward,
            self.stats.accepted_per_round,
        )  # fmt: skip
        counts = self.stats.to_dict()
        del counts["seconds"]  # rows of a batch share theirs, so that the sum means nothing
        return {
            **super().get_model_info(),
            "judge_decoding": {
                "draft": self._draft,
                "judge": self._judge,
                "rule": str(self._rule),
                "num_draft_tokens": self._num_draft_tokens,
                **counts,
            },
        }
