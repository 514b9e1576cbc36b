"""Turn rounds into samples, which have the text of every token, rejected ones included, next to its id."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from judge_decoding.core.rounds import Round, Stats, TokenDetails
from judge_decoding.core.samples import Sample, SampleDetails, SampleRound
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.models.text import pieces as text_pieces
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.judge import Judge

_CONTEXT = 8
"""Number of preceding tokens decoded with a rejected token: enough for any character and the space before it."""


def record(
    question: str,
    rounds: Sequence[Round],
    pieces: Sequence[str],
    decoder: JudgeDecoder,
    **about: Any,  # noqa: ANN401  (checked by Sample)
) -> Sample:
    """Build the sample of one answer; ``pieces`` are the texts of its tokens, ``about`` other fields of `Sample`."""
    tokenizer = decoder.tokenizer
    kept = [token for event in rounds for token in event.token_ids]
    recorded, begin = [], 0
    for event in rounds:
        end = begin + len(event.token_ids)
        before, own = kept[max(begin + event.accepted - _CONTEXT, 0) : begin + event.accepted], pieces[begin:end]
        rest = [*before, *event.draft_ids[event.accepted :]]
        recorded.append(
            SampleRound(
                token_ids=event.token_ids,
                pieces=tuple(own),
                causes=event.causes,
                rescuers=event.rescuers if any(event.rescuers) else (),
                draft_ids=event.draft_ids,
                draft_pieces=(*own[: event.accepted], *text_pieces(tokenizer, rest)[len(before) :]),
                target_ids=event.target_ids,
                scores=event.scores,
                details=None if event.details is None else _columns(event.details),
                stopped=event.stopped,
            )
        )
        begin = end
    special = set(tokenizer.all_special_ids)
    met = {token for event in rounds for token in (*event.token_ids, *event.draft_ids)}
    named = {token for event in rounds for token in event.target_ids} | (met & special)
    named |= {token for event in rounds for details in event.details or () for token, _ in details.alternatives}
    stats = Stats.of(rounds)
    return Sample(
        question=question,
        text="".join(pieces),
        rounds=tuple(recorded),
        vocabulary=spellings(tokenizer, named),
        end_ids=tuple(sorted(decoder.end_ids)),
        special_ids=tuple(sorted(met & special)),
        distance=next(iter(stats.distances), None),
        stats=stats.to_dict(),
        **about,
    )


def recorded_threshold(rule: VerificationRule, guards: Collection[object] = ()) -> float | None:
    """Return the judge's threshold (`Sample.threshold`) if only the judge and standard verification decide."""
    return rule.threshold if isinstance(rule, Judge) and not guards else None


def spellings(tokenizer: PreTrainedTokenizerBase, ids: Collection[int]) -> dict[int, str]:
    """Return the text that each of ``ids`` adds within a text, or the token's name if it adds no text by itself."""
    special = set(tokenizer.all_special_ids)
    # Some tokenizers drop the space before the first word of a text, so each token is decoded after another one.
    anchor = next((i for i in ids if i not in special and len(text_pieces(tokenizer, [i])[0].strip()) == 1), None)
    found = {}
    for token in sorted(ids):
        text = "" if token in special else text_pieces(tokenizer, [*([] if anchor is None else [anchor]), token])[-1]
        if not text or "\ufffd" in text:  # special, or part of a character
            text = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
        found[token] = text
    return found


def _columns(details: Sequence[TokenDetails]) -> SampleDetails:
    drafted = [own.draft_prob for own in details]
    return SampleDetails(
        agreed=tuple(own.agreed for own in details),
        target_probs=tuple(_probability(own.target_prob) for own in details),
        draft_probs=None if None in drafted else tuple(_probability(p) for p in drafted if p is not None),
        ranks=tuple(own.rank for own in details),
        entropies=tuple(_short(own.entropy) for own in details),
        alternatives=tuple(tuple((i, _probability(p)) for i, p in own.alternatives) for own in details),
    )


def _short(value: float) -> float:
    """Round to four significant digits for display. Scores are compared with thresholds, so they are not rounded."""
    return float(f"{value:.4g}")


def _probability(value: float) -> float:
    return min(_short(value), 1.0)  # a float32 softmax can exceed 1 by a rounding error
