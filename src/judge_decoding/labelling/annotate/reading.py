"""The target's reading of each answer: its tokens, its own likeliest tokens there, and the head's uncertainty."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.core.spans import Span
from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import CaseTokens, read_tokens
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, end_line, rows
from judge_decoding.io.inputs import DOCUMENT
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.annotate.pieces import case_id, cover
from judge_decoding.labelling.annotate.storage import ALL_READINGS, readings_path
from judge_decoding.loading.models import check_same_vocabulary, default_device, load_model, load_tokenizer
from judge_decoding.models.context import context_length
from judge_decoding.models.teacher_forcing import hidden_states, read_given
from judge_decoding.models.tokenize import check_offsets, end_ids

TOP = 3
"""The most alternative tokens of the target to show at each position."""
_VERSION = 2
"""Version of the reading format; readings of another version are made again."""
FLOOR = 0.01
"""The lowest probability of an alternative that is shown."""

_Choices = tuple[tuple[str | None, float], ...]


class AnswerReading(BaseModel):
    """The target's reading of one answer.

    Attributes:
        case: `case_id` of the answer.
        maker: identity of the target and the head that made it; see `ReadingModels.maker`.
        spans: character spans of the target's tokens, which together cover the answer.
        choices: for each token, and then for the end of the answer, the target's likeliest tokens there with their
            probabilities, likeliest first; None stands for the end of the answer.
        uncertainty: mean over the tokens of the entropy (bits, 0 to 1) of the head's verdict; None without a head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    maker: str
    spans: tuple[Span, ...]
    choices: tuple[_Choices, ...]
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True)
class ReadingModels:
    """The names of the models that read the answers; the models are loaded only if an answer is still unread."""

    target: str
    head: JudgeHead | None = None
    draft: str | None = None
    device: str | None = None

    @property
    def maker(self) -> str:
        """A hash of the target's name and the head's weights, because a retrained head has new uncertainties."""
        weights = b"" if self.head is None else self.head.linear.weight.numpy().tobytes()
        return hashlib.sha256(repr((_VERSION, self.target, self.draft)).encode() + weights).hexdigest()[:16]


def read_answers(
    cases: Sequence[Case], reader: ReadingModels, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, AnswerReading]:
    """Read all answers, each once: readings are kept in ``folder`` and reused the next time.

    An answer that does not fit into the target's context, or is empty, is left out. ``progress`` is called with the
    number of answers read and the total.

    Raises:
        JudgeDecodingError: a model cannot be loaded, the head belongs to another model, the tokenizer has no offsets,
            or another run is reading answers in this folder.
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
    found: dict[str, AnswerReading],
    reader: ReadingModels,
    progress: Callable[[int, int], None],
) -> None:
    """Read the ``wanted`` answers that are missing from ``found``; add them to it and to the file."""
    missing = [case for name, case in wanted.items() if name not in found]
    tokenizer, device = load_tokenizer(reader.target), reader.device or default_device()
    target = load_model(reader.target, device=device)
    check_offsets(tokenizer)
    draft = None
    if reader.head is not None and reader.head.config.draft is not None:
        if reader.draft is None:
            raise JudgeDecodingError(
                "This judge head also reads the draft model's hidden states; give the draft with --draft."
            )
        check_same_vocabulary(tokenizer, load_tokenizer(reader.draft))
        draft = load_model(reader.draft, device=device)
    if reader.head is not None:
        reader.head.check_fits(target, draft)
    ends = end_ids(target, tokenizer)
    context = context_length(target) or 2**31
    texts = [(case, _words(case, read_tokens(case, tokenizer, ends))) for case in missing]
    texts = [(case, t) for case, t in texts if t.prompt and t.answer and len(t.prompt) + len(t.answer) <= context]
    done = len(wanted) - len(texts)
    progress(done, len(wanted))
    try:
        with path.open("ab+") as file:
            end_line(file)
            for reading in _read(texts, reader, target, draft, tokenizer, ends):
                done += 1
                found[reading.case] = reading
                file.write(reading.model_dump_json().encode() + b"\n")
                progress(done, len(wanted))
    except OSError as error:
        raise cannot_write(path, error) from error


def _kept(folder: Path, maker: str, wanted: Container[str]) -> dict[str, AnswerReading]:
    """Earlier readings by the same models, for any user; a broken line, which a kill can leave, is ignored."""
    found: dict[str, AnswerReading] = {}
    for path in sorted(folder.glob(ALL_READINGS)):
        kept = rows(path, "the target's readings", AnswerReading, "is no reading: {}", lambda _: None, longest=DOCUMENT)
        found |= {own.case: own for _, own in kept if own.maker == maker and own.case in wanted}
    return found


def _words(case: Case, tokens: CaseTokens) -> CaseTokens:
    """The tokens of a case without the end token, which is not shown."""
    if tokens.spans[-1:] != ((len(case.answer), len(case.answer) + 1),):
        return tokens
    return CaseTokens(tokens.prompt, tokens.answer[:-1], tokens.spans[:-1])


@torch.inference_mode()
def _read(
    texts: Sequence[tuple[Case, CaseTokens]],
    reader: ReadingModels,
    target: PreTrainedModel,
    draft: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
) -> Iterator[AnswerReading]:
    """The readings of cases with their tokens, without the end tokens; short ones first."""
    both = [(*ids.prompt, *ids.answer) for _, ids in texts]
    wanted = [range(len(words.prompt), len(ids) + 1) for (_, words), ids in zip(texts, both, strict=True)]
    sources = [reader.head.config.source] if reader.head else []
    pieces = read_given(target, both, wanted, sources=sources)
    for i, own in groupby(pieces, key=lambda piece: piece.number):
        case, words = texts[i]
        choices, states = list[_Choices](), list[Tensor]()
        for piece in own:
            choices += _choices(piece.logits, tokenizer, ends)
            states += [piece.states[source].float().cpu() for source in sources]
        spans = cover(len(case.answer), [span or (0, 0) for span in words.spans])
        doubt = None
        if reader.head is not None:
            doubt = _doubt(reader.head, torch.cat(states), draft, both[i])
        yield AnswerReading(
            case=case_id(case),
            maker=reader.maker,
            spans=tuple(span for _, span in spans),
            choices=tuple(choices[number] for number, _ in [*spans, (len(words.answer), (0, 0))]),
            uncertainty=doubt,
        )


def _choices(logits: Tensor, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> list[_Choices]:
    """The likeliest tokens for each of ``logits`` [n, V]."""
    top = logits.softmax(-1).topk(min(TOP, logits.shape[-1]))
    return [
        tuple(
            (None if token in ends else str(tokenizer.decode([token])), round(probability, 4))
            for probability, token in zip(*row, strict=True)
            if probability >= FLOOR
        )
        for row in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _doubt(head: JudgeHead, states: Tensor, draft: PreTrainedModel | None, ids: Sequence[int]) -> float:
    """Mean entropy in bits of the head's verdicts on the answer's tokens, from the target's states [count, H]."""
    theirs = None if draft is None else hidden_states(draft, [ids], head.config.norm)[0][-len(states) :]
    sure = head.probability(states, theirs).double()
    return float((torch.special.entr(sure) + torch.special.entr(1 - sure)).mean() / torch.log(torch.tensor(2.0)))
