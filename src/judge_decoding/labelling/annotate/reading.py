"""What the target makes of each answer: its tokens, what it would have said there, and the head's doubts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.data.cases import Case
from judge_decoding.data.spans import Span
from judge_decoding.data.tokens import CaseTokens, read_tokens
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import end_line, rows
from judge_decoding.io.inputs import DOCUMENT
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.annotate.pieces import case_id, cover
from judge_decoding.labelling.annotate.storage import ALL_READINGS, readings_path
from judge_decoding.loading.models import check_same_vocabulary, load_model, load_tokenizer, usual_device
from judge_decoding.models.forward import plain_forward
from judge_decoding.models.hidden import HiddenStateHook
from judge_decoding.models.tokenize import end_ids
from judge_decoding.training.features import hidden_states

TOP = 3
"""How many tokens the target may name at each place."""
_VERSION = 2
"""Of how answers are read: what was read otherwise is read anew."""
FLOOR = 0.01
"""The least probability worth naming."""


class Reading(BaseModel):
    """The target's reading of one answer.

    Attributes:
        case: `case_id` of the answer.
        maker: what target and head it was made with; see `Reader.maker`.
        spans: character spans of the target's tokens, which joined are the answer.
        choices: at each of them, and last at the end of the answer, the target's own likeliest tokens there with
            their probabilities, likeliest first; None stands for the end of the answer.
        uncertainty: mean over the tokens of the entropy (bits, 0 to 1) of the head's verdict; None without a head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    maker: str
    spans: tuple[Span, ...]
    choices: tuple[tuple[tuple[str | None, float], ...], ...]
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Names of the models that read the answers; they are loaded only if an answer has not been read yet."""

    target: str
    head: JudgeHead | None = None
    draft: str | None = None

    @property
    def maker(self) -> str:
        """A hash of the target's name and the head's weights: a head trained anew has new doubts."""
        weights = b"" if self.head is None else self.head.linear.weight.numpy().tobytes()
        return hashlib.sha256(repr((_VERSION, self.target, self.draft)).encode() + weights).hexdigest()[:16]


def read_answers(
    cases: Sequence[Case], reader: Reader, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Reading]:
    """Read all answers, each once: what was read is kept in ``folder`` and taken from there the next time.

    An answer that does not fit into the target's context, or is empty, is left out. ``progress`` is told how many
    answers are read and how many there are.

    Raises:
        JudgeDecodingError: a model cannot be loaded, the head belongs to another, the tokenizer has no offsets, or
            another run reads answers there.
    """
    path = readings_path(folder)
    wanted = {case_id(case): case for case in cases}
    found = _kept(folder, reader.maker, wanted)
    if len(found) < len(wanted):
        with one_run(path):
            found = _kept(folder, reader.maker, wanted)
            _read_missing(path, wanted, found, reader, progress or (lambda _done, _total: None))
    return found


def _read_missing(
    path: Path,
    wanted: Mapping[str, Case],
    found: dict[str, Reading],
    reader: Reader,
    progress: Callable[[int, int], None],
) -> None:
    """Read those of the ``wanted`` answers that were not ``found``, and add them there and to the file."""
    missing = [case for name, case in wanted.items() if name not in found]
    tokenizer, target = load_tokenizer(reader.target), load_model(reader.target, device=usual_device())
    if not tokenizer.is_fast:
        raise JudgeDecodingError(
            f"{type(tokenizer).__name__} gives no character offsets; use the fast tokenizer of this model."
        )
    draft = None
    if reader.head is not None and reader.head.config.draft is not None:
        if reader.draft is None:
            raise JudgeDecodingError("This judge head reads the draft model's hidden states too; name it with --draft.")
        check_same_vocabulary(tokenizer, load_tokenizer(reader.draft))
        draft = load_model(reader.draft, device=usual_device())
    if reader.head is not None:
        reader.head.check_fits(target, draft)
    ends = end_ids(target, tokenizer)
    context = getattr(target.config.get_text_config(), "max_position_embeddings", None) or 2**31
    try:
        with path.open("ab+") as file:
            end_line(file)
            for number, case in enumerate(missing, start=len(found) + 1):
                tokens = _words(case, read_tokens(case, tokenizer, ends))
                pieces = cover(len(case.answer), [span or (0, 0) for span in tokens.spans])
                if len(tokens.prompt) + len(tokens.answer) <= context and tokens.prompt and tokens.answer:
                    reading = _read(case, tokens, pieces, reader, target, draft, tokenizer, ends)
                    found[reading.case] = reading
                    file.write(reading.model_dump_json().encode() + b"\n")
                progress(number, len(wanted))
    except OSError as error:
        raise JudgeDecodingError(f"Cannot write {path}: {error.strerror}; choose another place.") from error


def _kept(folder: Path, maker: str, wanted: Container[str]) -> dict[str, Reading]:
    """What the same models have read before, for any user; a broken line, as a kill leaves, does not count."""
    found: dict[str, Reading] = {}
    for path in sorted(folder.glob(ALL_READINGS)):
        kept = rows(path, "the target's readings", Reading, "is no reading: {}", lambda _: None, longest=DOCUMENT)
        found |= {own.case: own for _, own in kept if own.maker == maker and own.case in wanted}
    return found


def _words(case: Case, tokens: CaseTokens) -> CaseTokens:
    """The tokens of a case without the end token, which is no part of what is shown."""
    if tokens.spans[-1:] != ((len(case.answer), len(case.answer) + 1),):
        return tokens
    return CaseTokens(tokens.prompt, tokens.answer[:-1], tokens.spans[:-1])


@torch.inference_mode()
def _read(
    case: Case,
    words: CaseTokens,
    pieces: list[tuple[int, Span]],
    reader: Reader,
    target: PreTrainedModel,
    draft: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
) -> Reading:
    """One forward over the tokens of a case, its end token left out."""
    ids, count = [*words.prompt, *words.answer], len(words.answer)
    tensor = torch.tensor([ids], device=target.device)
    source = reader.head.config.source if reader.head else HiddenSource(-1, "before")
    with HiddenStateHook(target, source) as tap:
        logits = plain_forward(target, tensor, count + 1)[0]
        states = tap.states[0, -count:].float().cpu()
    # In parts, as a long answer's probabilities over a large vocabulary would take gigabytes.
    top = [part.float().softmax(-1).topk(min(TOP, part.shape[-1])) for part in logits.split(256)]
    probabilities, tokens = (torch.cat([part[side] for part in top]).tolist() for side in (0, 1))
    choices = [
        tuple(
            (None if token in ends else str(tokenizer.decode([token])), round(probability, 4))
            for probability, token in zip(*row, strict=True)
            if probability >= FLOOR
        )
        for row in zip(probabilities, tokens, strict=True)
    ]
    return Reading(
        case=case_id(case),
        maker=reader.maker,
        spans=tuple(span for _, span in pieces),
        choices=tuple(choices[number] for number, _ in [*pieces, (count, (0, 0))]),
        uncertainty=None if reader.head is None else _doubt(reader.head, states, draft, ids, count),
    )


def _doubt(head: JudgeHead, states: Tensor, draft: PreTrainedModel | None, ids: list[int], count: int) -> float:
    """Mean entropy in bits of the head's verdicts on the answer's tokens, from the target's states [count, H]."""
    theirs = None if draft is None else hidden_states(draft, [ids], head.config.norm)[0][-count:]
    sure = head.probability(states, theirs).double()
    return float((torch.special.entr(sure) + torch.special.entr(1 - sure)).mean() / torch.log(torch.tensor(2.0)))
