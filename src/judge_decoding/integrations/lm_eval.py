"""Judge decoding in the lm-evaluation-harness: the model class ``judge``.

The harness does not discover models of other packages, so import this module first; ``judge-decoding lm-eval`` does so,
and runs the harness's own command line. In Python::

    import judge_decoding.integrations.lm_eval
    from lm_eval import simple_evaluate

    simple_evaluate(model="judge", model_args={"pretrained": "TARGET", "draft": "DRAFT", "judge": "HEAD"}, tasks=[...])
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from judge_decoding.core.rounds import Stats
from judge_decoding.decoding.choices import choose_num_draft_tokens, choose_rule
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.transformers import custom_generate
from judge_decoding.io.hub import locate
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import ACCESS, as_draft, cannot_load, load_model
from judge_decoding.names import complete, embedded_path
from judge_decoding.spelling import guess

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise JudgeDecodingError(
        f"The lm-evaluation-harness is not installed ({error.name} is missing); install it with: "
        "pip install 'judge-decoding[eval]'."
    ) from error

_LOG = logging.getLogger("lm_eval.judge_decoding")  # the harness shows log messages under its own name


class _Loading:
    """Stands in for the harness's ``AutoModelForCausalLM``."""

    from_pretrained = staticmethod(load_model)


@register_model("judge")
class JudgeLM(HFLM):  # type: ignore[misc]  # the harness has no types
    """The harness's ``hf`` model, generating with judge decoding.

    Generation (``generate_until``) uses the draft and the rule; each row of a batch is decoded as it would be alone.
    The total counts are in the results under ``config`` / ``judge_decoding``. Tasks that score given answers
    (``loglikelihood``, such as most multiple-choice tasks) run as in ``hf``, without a draft or a rule.

    Args:
        pretrained: Hub name or folder of the target, or the model itself; "reference" is the embedded target, which
            by default uses its own draft and judge.
        draft: Hub name or folder of a draft model, or "prompt-lookup".
        judge: folder or Hub repository of a judge head; without a head, verification is exact.
        rule: spelling of a verification rule instead of the judge, such as "top_k(k=4)".
        threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
        num_draft_tokens: draft length M; by default the head's own best length, or 16.
        translate: whether the draft may have another vocabulary; see `TranslatingDraft`.
        draft_kwargs: options of ``from_pretrained`` for the draft only, such as its ``revision``; from Python only.
        arguments: all others of ``hf`` (``dtype``, ``device``, ``batch_size``, ...). Those about access (``token``,
            ``cache_dir``, ``trust_remote_code``, ...) also apply to the draft. `load_model` loads the weights.

    Raises:
        JudgeDecodingError: there is no draft or it has another vocabulary, a head or model cannot be loaded or they do
            not match, a rule or argument is unknown, a value is out of range, or there are several processes.
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
        draft_kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,  # noqa: ANN401  (those of hf)
    ) -> None:
        draft, judge = complete(pretrained if isinstance(pretrained, str) else "", draft, judge)
        if draft is None:
            raise JudgeDecodingError(
                'The model judge needs a draft; give the draft model\'s name or "prompt-lookup" as draft, or use the '
                "model hf."
            )
        # Check these before loading a model. The harness converts strings that look like numbers.
        for name, value, kind, wanted in (
            ("draft", draft, str | Path, "a name or folder"), ("judge", judge, str | Path, "a name or folder"),
            ("rule", rule, str, "a text"), ("threshold", threshold, int | float, "a number"),
            ("num_draft_tokens", num_draft_tokens, int, "a whole number"),
            ("translate", translate, bool, "True or False"),
        ):  # fmt: skip
            if value is not None and not isinstance(value, kind):
                raise JudgeDecodingError(f"The model argument {name} is {value!r}; it must be {wanted}.")
        head = None if judge is None else JudgeHead.from_pretrained(judge)
        self._rule = choose_rule(head, rule, threshold)
        self._num_draft_tokens = choose_num_draft_tokens(head, num_draft_tokens)
        if isinstance(pretrained, str):
            pretrained = embedded_path(pretrained, "target")
            reading = ("subfolder", "revision", "token", "cache_dir", "local_files_only")
            # Fail early: the harness queries the Hub for a minute for a model that does not exist.
            locate(pretrained, "model", {name: arguments[name] for name in reading if arguments.get(name)})
        try:
            super().__init__(pretrained, **arguments)
        except JudgeDecodingError as error:
            # The harness passes unknown arguments on, down to the model's class.
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error.__cause__))
            if unknown is None or unknown[1] not in arguments:
                raise
            names = [*inspect.signature(JudgeLM).parameters, *inspect.signature(HFLM).parameters]
            raise JudgeDecodingError(
                f"There is no model argument {unknown[1]}{guess(unknown[1], names)}; the model judge accepts draft, "
                "judge, rule, threshold, num_draft_tokens, translate and the arguments of hf."
            ) from error
        except (OSError, ValueError, SafetensorError) as error:
            if isinstance(error, ValueError) and "trust_remote_code" not in str(error):
                raise
            raise cannot_load("model", str(pretrained), error) from error
        if self.world_size > 1:
            raise JudgeDecodingError(
                "The model judge runs in one process, and there are several; start it without accelerate or torchrun, "
                "and use parallelize=True for a target over several GPUs."
            )
        drafter = as_draft(
            draft, lambda: self.tokenizer, translate=translate, draft_kwargs=draft_kwargs,
            **{name: value for name, value in arguments.items() if name in ACCESS},
            device=str(self.model.device), dtype=self.model.dtype,
        )  # fmt: skip
        if head is not None:
            head.check_fits(self.model, drafter)
        self._method = custom_generate(drafter, head, self._rule, num_draft_tokens=self._num_draft_tokens)
        self._draft, self._judge, self.stats = str(draft), str(judge or ""), Stats()

    def _create_model(self, pretrained: str, *args: Any, **arguments: Any) -> None:  # noqa: ANN401
        """As in ``hf``, but check that all weights come from the checkpoint."""
        usual: Any = self.AUTO_MODEL_CLASS
        if usual is AutoModelForCausalLM:
            self.AUTO_MODEL_CLASS: Any = _Loading
        try:
            super()._create_model(pretrained, *args, **arguments)
        finally:
            self.AUTO_MODEL_CLASS = usual

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:  # noqa: ANN401
        """As in ``hf``: return the prompts [B, T] followed by their answers."""
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
        """As in ``hf``, with the decoding settings and counts; the harness calls this after the run for the results."""
        _LOG.info(
            "%s: %d tokens in %d rounds, %.2f per target forward, %.2f accepted draft tokens per round",
            self._rule, self.stats.tokens, self.stats.rounds, self.stats.tokens_per_forward,
            self.stats.accepted_per_round,
        )  # fmt: skip
        counts = self.stats.to_dict()
        del counts["seconds"]  # rows of a batch share their time, so the sum is meaningless
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
