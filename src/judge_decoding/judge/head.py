"""The judge head: one linear layer on the target's hidden state, and its files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_not_a_file, parse_json, read_bytes, read_text, replacing, write_text
from judge_decoding.io.hub import locate
from judge_decoding.judge.card import bare_card
from judge_decoding.judge.config import JudgeHeadConfig, StoredScores, read_config
from judge_decoding.judge.familiarity import Familiarity
from judge_decoding.judge.files import CARD, CONFIG, CUSTOM_GENERATE, WEIGHTS, files_of_head, results_in
from judge_decoding.judge.probe import spread_ids
from judge_decoding.judge.target import bare, check_target
from judge_decoding.models.forward import input_rows
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.names import embedded_path

log = logging.getLogger(__name__)

PROMPTS, PROMPT_LENGTH = 16, 12
"""The number and length of the prompts whose scores are stored. Quantised weights cannot be compared number by number,
and an engine may not give access to its layers; scores can be compared wherever the head works."""


class JudgeHead(nn.Module):
    """``sigmoid(w·h + b)``: the probability that a token is correct, from the target's hidden state *at* it.

    Source: Judge Decoding (arXiv 2501.19309), section 4: one linear layer, here 1 + hidden size numbers, on the last
    hidden state unless ``config.layer`` selects another. A head with ``config.draft`` also reads the draft model's
    state at the token: h is [draft's; target's], the features of AutoJudge (arXiv 2504.20039).
    """

    def __init__(self, config: JudgeHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.input_size, 1)
        self.familiarity: Familiarity | None = None
        if config.familiarity is not None:
            self.familiarity = Familiarity(config.familiarity, config.target.hidden_size)
        self.requires_grad_(False)
        self.folder: Path | None = None
        """The folder that the head was loaded from; it may also hold measurements of the head."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights and the bias; it identifies a head independently of its name."""
        numbers = torch.cat((self.linear.weight.flatten(), self.linear.bias)).detach().float().cpu()
        return hashlib.sha256(numbers.numpy().astype("<f4").tobytes()).hexdigest()

    def set_familiarity(self, familiarity: Familiarity | None) -> None:
        """Set the statistics of the training questions; the head's probabilities do not change."""
        self.familiarity = familiarity
        self.config.familiarity = familiarity.config if familiarity else None

    def probability(self, hidden: Tensor, draft_hidden: Tensor | None = None) -> Tensor:
        """Return P(CORRECT) [...] from the target's states [..., H] and, if read, the draft's [..., Hd].

        Raises:
            JudgeDecodingError: the draft's states are missing or have the wrong size.
        """
        draft = self.config.draft
        if draft is None:
            return self.log_odds(hidden).sigmoid()
        if draft_hidden is None:
            raise JudgeDecodingError(
                "This judge head also reads the draft model's hidden states, and this drafter has none; "
                f"use the draft it was trained with, {draft.name_or_path or 'a model without a name'}."
            )
        if draft_hidden.shape[-1] != draft.hidden_size:
            raise JudgeDecodingError(draft.misfit("draft", "hidden size", draft.hidden_size, draft_hidden.shape[-1]))
        return self.log_odds(torch.cat((draft_hidden.float(), hidden.float()), -1)).sigmoid()

    forward = probability

    def log_odds(self, states: Tensor) -> Tensor:
        """Return ``w·h + b`` [...] of all inputs [..., input size]: the log-odds of CORRECT."""
        # One sum per token: the rounding of a matrix product depends on the number of tokens, so a row in a batch
        # would get other scores than alone.
        return (states.to(self.linear.weight) * self.linear.weight[0]).sum(-1) + self.linear.bias

    def store_scores(self, model: PreTrainedModel) -> None:
        """Store what the head says of a few prompts on its own target ``model``, for checks of other copies of it."""
        self.config.scores = None
        if self.config.draft is None:
            model = bare(model)
            prompts = prompts_for(input_rows(model))
            self.config.scores = StoredScores(prompts=prompts, scores=self.scores_on(model, prompts))

    def scores_on(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-odds of the state of ``model`` at the last token of each of ``prompts``."""
        states = hidden_states(model, prompts, self.config.source.norm, self.config.source.layer)
        return [float(self.log_odds(own[-1])) for own in states]

    def check_fits(self, model: PreTrainedModel, draft: object = None) -> None:
        """Check that ``model`` is the target this head was trained on and ``draft``, if it is a model, its draft.

        A head that reads only the target fits any draft. A quantised model that is close enough is accepted with a
        logged sentence that gives the difference: that of the head's scores if the head has stored some, else that of
        the layers.

        Raises:
            JudgeDecodingError: architecture, size, depth or weights differ, or the scores on a quantised model do.
        """
        if (warning := check_target(self.config.target, model)) is not None:
            log.warning(self._compare_scores(bare(model)) or warning)
        if self.config.draft is not None and isinstance(draft, PreTrainedModel):
            warning = check_target(self.config.draft, draft, "draft")
            if warning is not None:
                log.warning(warning)

    def _compare_scores(self, model: PreTrainedModel) -> str | None:
        """Compare the scores on a quantised ``model`` with the stored ones; None if there are none.

        Raises:
            JudgeDecodingError: they differ too much.
        """
        stored = self.config.scores
        if stored is None:
            return None
        name = str(model.config.name_or_path) or "this target"
        comparison = stored.check(self.scores_on(model, stored.prompts), name, quantized=True)
        return f"The target {name} or the one this head was trained for is quantised: {comparison}."

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the head, its configuration and a bare model card to ``folder``, each file whole or not at all.

        It also writes a few lines of Python with which transformers' own ``generate`` can decode from this folder
        (``custom_generate``). Loading a head never runs them. Results of this head in the folder are kept; those of
        another head, plots and pictures are removed. `save_head` writes the full card, with measurements.

        Raises:
            JudgeDecodingError: the folder cannot be written.
        """
        folder = Path(folder)
        check_not_a_file(folder, "a head")
        own = [path for path in results_in(folder) if self.owns(_recorded_hash(path), folder)]
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with replacing(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
        config = self.config.model_dump_json(indent=2) + "\n"
        texts = {CONFIG: config, CARD: bare_card(self.config), **CUSTOM_GENERATE}
        for name, text in texts.items():
            write_text(folder / name, text)
        written = [folder / name for name in (WEIGHTS, *texts)]
        for path in files_of_head(folder):
            if path not in (*written, *own):
                path.unlink(missing_ok=True)

    def owns(self, judge_hash: str | None, folder: Path) -> bool:
        """Whether results in a head's folder belong to this head, by the hash in them or the weights beside them.

        Args:
            judge_hash: the hash of the head's weights in the results; "" if missing, None if there are no results.
            folder: the folder of the results.
        """
        if judge_hash == "":
            with suppress(JudgeDecodingError):
                judge_hash = JudgeHead.from_pretrained(folder).weights_hash
        return judge_hash == self.weights_hash

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        target: PreTrainedModel | None = None,
        draft: PreTrainedModel | None = None,
        **options: Any,  # noqa: ANN401  (passed on)
    ) -> Self:
        """Load a head from a folder or a Hub repository.

        Args:
            name_or_path: a folder that `save_pretrained` wrote, a repository name such as ``"me/my-judge"``, or
                "reference" for the embedded head.
            target: if given, check the head against it.
            draft: the same for the draft, if the head also reads its hidden states.
            options: options for a Hub repository: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ...

        Raises:
            JudgeDecodingError: there is no head, a file is damaged or foreign, or the head is for other models.
        """
        folder = _resolve(name_or_path, options)
        config = read_config(folder)
        head = cls(config)
        if not (folder / WEIGHTS).exists():
            raise JudgeDecodingError(f"{folder} has no {WEIGHTS}; save or download the head again.")
        try:
            head.load_state_dict(load(read_bytes(folder / WEIGHTS, "the judge head's weights")))
        except (SafetensorError, RuntimeError) as error:
            raise JudgeDecodingError(
                f"{folder / WEIGHTS} is damaged or does not hold {config.input_size} weights and a bias"
                f"{', and the statistics of the training questions' if config.familiarity else ''}; "
                "save or download the head again."
            ) from error
        if not all(value.isfinite().all() for value in head.state_dict().values()):
            raise JudgeDecodingError(f"{folder / WEIGHTS} holds numbers that are not finite; train the head again.")
        if head.familiarity is not None and not (head.familiarity.variances > 0).all():
            raise JudgeDecodingError(f"{folder / WEIGHTS} holds variances that are not above 0; train the head again.")
        if target is not None:
            head.check_fits(target, draft)
        head.folder = folder.absolute()
        return head


def _recorded_hash(results: Path) -> str | None:
    """Return the hash of the head's weights in a results file: "" if missing, None if it holds no results."""
    with suppress(JudgeDecodingError, ValueError):
        content = parse_json(read_text(results, "the results"))
        if isinstance(content, dict):
            return str(content.get("judge_hash", ""))
    return None


def _resolve(name_or_path: str | Path, options: Mapping[str, Any]) -> Path:
    """Return the folder of a head, downloaded from the Hub if it is not a local folder."""
    name_or_path = embedded_path(name_or_path, "judge")
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise JudgeDecodingError(f"{folder} is a file; give the folder of a judge head.")
    missing = (
        f"There is no judge head at {name_or_path}: neither a folder here nor a repository that can be reached; "
        "check the name."
    )
    if isinstance(name_or_path, Path) or name_or_path.count("/") != 1:
        raise JudgeDecodingError(missing)
    try:
        source = locate(name_or_path, "judge head", {key: options[key] for key in _READING if options.get(key)})
        patterns = [CONFIG, WEIGHTS, CARD, "results*.json"]
        return Path(snapshot_download(name_or_path, allow_patterns=patterns, **source.options))
    except (
        HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, JudgeDecodingError
    ) as error:  # fmt: skip
        raise JudgeDecodingError(missing) from error


_READING = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def prompts_for(rows: int) -> list[list[int]]:
    """Return the prompts whose scores are stored, for a vocabulary of ``rows``; see `spread_ids`."""
    ids = spread_ids(rows, PROMPTS * PROMPT_LENGTH)
    return [ids[begin : begin + PROMPT_LENGTH] for begin in range(0, len(ids), PROMPT_LENGTH)]
