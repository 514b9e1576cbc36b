"""The verification of all rows' drafts: which tokens stay, which target token follows, and the resulting rounds.

Rows that are verified alike are verified together, as many at a time as memory allows. The host does not wait for the
device until everything is computed; then it reads all results in one transfer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from judge_decoding.core.rounds import Cause, Round, TokenDetails
from judge_decoding.decoding.backends.base import FusedVerdict, VerifyOutput
from judge_decoding.decoding.drafters.base import Draft
from judge_decoding.decoding.guards import permitted
from judge_decoding.models.forward import check_finite, finite
from judge_decoding.rules.evidence import Evidence
from judge_decoding.rules.verification import Verdicts, decide, in_parts, replacements

if TYPE_CHECKING:
    from judge_decoding.decoding.request import SequenceState

TOP = 5
"""How many of the target's most probable tokens are listed at each position."""


def verify(
    rows: Sequence[SequenceState], drafts: Sequence[Draft], outputs: Sequence[VerifyOutput], drafting: bool = True
) -> list[Round]:
    """Keep the longest accepted prefix of each row's draft and one token of the target after it.

    Without a drafter (not ``drafting``), the prompt's distance to the judge's training questions is not computed.
    """
    alike: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i, (row, draft, output) in enumerate(zip(rows, drafts, outputs, strict=True)):
        if output.fused is None:
            alike[i if row.request.guards else _kind(row, draft)].append(i)
    parts = [
        part for indices in alike.values()
        for part in in_parts(indices, max(len(drafts[i].ids) for i in indices), outputs[indices[0]].vocab_size)
    ]  # fmt: skip
    groups = [_Group([rows[i] for i in part], [drafts[i] for i in part], [outputs[i] for i in part]) for part in parts]
    new = [i for i, row in enumerate(rows) if drafting and row.is_new]
    distances = {i: distance for i in new if (distance := _distance(rows[i], outputs[i])) is not None}
    tables = [group.table for group in groups] + ([torch.stack(list(distances.values()))] if distances else [])
    # The only time that the host waits for the device.
    numbers = iter(torch.cat([table.flatten() for table in tables]).tolist() if tables else ())
    events: dict[int, Round] = {}
    for part, group in zip(parts, groups, strict=True):
        events.update(zip(part, group.rounds(numbers), strict=True))
    for i, output in enumerate(outputs):
        if output.fused is not None:
            events[i] = _fused_round(rows[i], output.fused)
    for i in distances:
        events[i] = replace(events[i], distance=next(numbers))
    return [events[i] for i in range(len(rows))]


def _kind(row: SequenceState, draft: Draft) -> Hashable:
    """Return the key by which rows are grouped: rows of one kind share their tensors."""
    request = row.request
    return (
        id(request.rule), request.sampler.greedy, request.sampler.is_bare, len(draft.ids) > 0, draft.probs is None,
        draft.hidden is None, bool(request.length.stop_below), request.logprobs, request.details,
    )  # fmt: skip


def _distance(row: SequenceState, output: VerifyOutput) -> Tensor | None:
    """Return the prompt's distance to the rule's training data, as a scalar on the device; for the first round."""
    rule = row.request.rule
    if rule.source is None or rule.source not in output.all_states:
        return None
    # Position 0 of the forward pass is the last kept token, which in the first round is the prompt's last token.
    return rule.distance(output.states(rule.source)[0])


def _fused_round(row: SequenceState, verdict: FusedVerdict) -> Round:
    """Build the round of a greedy draft whose rule was applied inside the forward pass."""
    rule = row.request.rule
    agreed = [draft == target for draft, target in zip(verdict.draft_ids, verdict.target_ids, strict=False)]
    kept, scores = agreed, None
    if verdict.draft_ids and (fused := rule.fused()) is not None and fused.source is not None:
        scores = verdict.scores
        kept = [a or fused.keeps(score) for a, score in zip(agreed, scores, strict=True)]
    accepted = kept.index(False) if False in kept else len(kept)
    return _round(
        row, verdict.draft_ids, verdict.target_ids, agreed, [rule.name] * len(kept), accepted,
        verdict.target_ids[accepted], scores,
    )  # fmt: skip


class _Group:
    """Rows that are verified together; with guards, which look at a single answer, only one row.

    ``table`` [B, C] has everything the host needs, in float32, which represents every id below 2 ** 24 exactly.
    """

    def __init__(self, rows: Sequence[SequenceState], drafts: Sequence[Draft], outputs: Sequence[VerifyOutput]) -> None:
        self._rows = rows
        self._counts = [len(draft.ids) for draft in drafts]
        request = rows[0].request
        logits = [output.logits for output in outputs]
        evidence, allowed = self._evidence(drafts, outputs, logits)

        def permit(rescues: Tensor) -> Tensor:
            return permitted(request.guards, rescues[0], evidence, rows[0].history)[None]

        verdicts = decide(request.rule, evidence, allowed, permit if request.guards else None)
        target_tokens = self._target_tokens(evidence, verdicts)
        # The check for finite numbers is read in the same transfer as the results.
        sound = [torch.stack([finite(each) for each in logits])]
        if not request.sampler.greedy and drafts[0].probs is not None:
            sound.append(torch.stack([finite(draft.probs) for draft in drafts if draft.probs is not None]))
        columns = {
            "draft_ids": evidence.draft_ids,
            "target_ids": evidence.target_ids,
            "agreed": verdicts.agreed,
            "keeper": verdicts.part,
            "end": torch.stack((verdicts.accepted, target_tokens, *sound), 1),
        }
        if verdicts.scores is not None:
            columns["scores"] = verdicts.scores
        if request.logprobs:
            columns["logprobs"] = _logprobs(evidence, verdicts.accepted, target_tokens)
        if request.details:
            probs = _stacked([draft.probs for draft in drafts])
            columns["details"] = detail_columns(evidence, verdicts.agreed, probs).flatten(1)
        self._vocab_size = evidence.target_logits.shape[-1]
        self._widths = {name: column.shape[1] for name, column in columns.items()}
        self.table = torch.cat([column.float() for column in columns.values()], 1)

    def _evidence(
        self, drafts: Sequence[Draft], outputs: Sequence[VerifyOutput], logits: Sequence[Tensor]
    ) -> tuple[Evidence, Tensor | None]:
        """Return the rule's evidence, and which draft tokens no constraint forbids [B, M]; None allows all."""
        request, device = self._rows[0].request, logits[0].device
        rule, sampler, longest = request.rule, request.sampler, max(self._counts)
        processed: list[Tensor | None] = [*logits]
        allowed: list[Tensor | None] = []
        for i, (row, draft) in enumerate(zip(self._rows, drafts, strict=True)):
            row_sampler = row.request.sampler
            if row_sampler.is_bare:
                continue
            read = torch.cat((row.tokens.ids, draft.ids))[None]  # everything the target has read
            processed[i] = row_sampler.process(read, logits[i][None])[0]
            mask = row_sampler.allowed(read, logits[i][None], draft.ids)
            allowed.append(torch.ones_like(draft.ids, dtype=torch.bool) if mask is None else mask)
        hidden = None
        if rule.source and longest:
            # A target spread over several devices may have its last layer on another device than its output.
            hidden = _stacked([output.states(rule.source)[1:].to(device) for output in outputs])
        # Details change no token: rules and guards do not see a greedy draft's distributions requested only for them.
        only_details = sampler.greedy and request.details and not (rule.needs_draft_probs or request.length.stop_below)
        uniform = [row.request.sampler.uniform(count)[0] for row, count in zip(self._rows, self._counts, strict=True)]
        ids = _stacked([draft.ids for draft in drafts])
        target_logits = _stacked(processed)
        assert ids is not None
        assert target_logits is not None
        evidence = Evidence(
            draft_ids=ids,
            target_logits=target_logits,
            draft_probs=None if only_details else _stacked([draft.probs for draft in drafts]),
            hidden=hidden,
            draft_hidden=_stacked([draft.hidden for draft in drafts]),
            uniform=_stacked(uniform),
            greedy=sampler.greedy,
            lengths=None if min(self._counts) == longest else torch.tensor(self._counts, device=device),
        )
        return evidence, _stacked(allowed) if allowed else None

    def _target_tokens(self, evidence: Evidence, verdicts: Verdicts) -> Tensor:
        """Return the target's own token after the kept prefix of each draft [B]."""
        request = self._rows[0].request
        if request.sampler.greedy:
            return evidence.target_ids.gather(1, verdicts.accepted[:, None])[:, 0]
        probs = replacements(request.rule, evidence, verdicts)
        return torch.cat([row.request.sampler.draw(probs[i : i + 1]) for i, row in enumerate(self._rows)])

    def rounds(self, numbers: Iterator[float]) -> list[Round]:
        """Build the rounds from the ``table``'s numbers in order."""
        return [self._round(row, count, numbers) for row, count in zip(self._rows, self._counts, strict=True)]

    def _round(self, row: SequenceState, count: int, numbers: Iterator[float]) -> Round:
        results = {name: list(islice(numbers, width)) for name, width in self._widths.items()}
        accepted, target_token, *sound = results["end"]
        for role, good in zip(("target", "draft"), sound, strict=False):
            check_finite(bool(good), role)
        names = [part.name for part in row.request.rule.parts]
        scores = results["scores"][:count] if "scores" in results and count else None
        event = _round(
            row, list(map(int, results["draft_ids"][:count])), list(map(int, results["target_ids"][: count + 1])),
            list(map(bool, results["agreed"][:count])), [names[int(part)] for part in results["keeper"][:count]],
            int(accepted), int(target_token), scores,
        )  # fmt: skip
        if not (row.request.logprobs or row.request.details):
            return event
        details = None
        if (flat := results.get("details")) is not None:
            width = len(flat) // max(1, *self._counts)
            details = details_of([flat[i * width : (i + 1) * width] for i in range(count)], self._vocab_size)
        logprobs = tuple(results["logprobs"][: len(event.token_ids)]) if "logprobs" in results else None
        return replace(event, logprobs=logprobs, details=details)


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    """Stack tensors [M_i, ...] of all rows into [B, M, ...], padded with zeros; None if a row has none."""
    there = [value for value in values if value is not None]
    if len(there) < len(values) or not there:
        return None
    return there[0][None] if len(there) == 1 else pad_sequence(there, batch_first=True)


def _round(
    row: SequenceState,
    draft_ids: Sequence[int],
    target_ids: Sequence[int],
    agreed: Sequence[bool],
    rescuers: Sequence[str],
    accepted: int,
    target_token: int,
    scores: Sequence[float] | None,
) -> Round:
    """Build the round: the first ``accepted`` draft tokens and ``target_token`` after them, cut at an end token.

    ``agreed`` is standard verification's verdict on the M draft tokens, ``rescuers`` the rule that keeps the others.
    """
    tokens = [*draft_ids[:accepted], target_token]
    causes = [Cause.AGREED if agreed[i] else Cause.RESCUED for i in range(accepted)]
    causes.append(Cause.BONUS if accepted == len(draft_ids) else Cause.CORRECTION)
    end_ids = row.request.end_ids
    end = next((i for i, token in enumerate(tokens, 1) if token in end_ids), None)
    cut = min(end or len(tokens), row.left)
    return Round(
        draft_ids=tuple(draft_ids),
        token_ids=tuple(tokens[:cut]),
        causes=tuple(causes[:cut]),
        target_ids=tuple(target_ids),
        scores=None if scores is None else tuple(scores),
        stopped=end is not None and end <= cut,
        rescuers=tuple(rescuers[i] if cause is Cause.RESCUED else "" for i, cause in enumerate(causes[:cut])),
    )


def _logprobs(evidence: Evidence, accepted: Tensor, target_tokens: Tensor) -> Tensor:
    """Return the target's log-probability of each kept token [B, M+1]; entries after the kept tokens are unused."""
    kept = torch.nn.functional.pad(evidence.draft_ids, (0, 1)).scatter(1, accepted[:, None], target_tokens[:, None])
    return evidence.target_logits.log_softmax(-1).gather(-1, kept[..., None])[..., 0]


def detail_columns(evidence: Evidence, agreed: Tensor, drawn: Tensor | None) -> Tensor:
    """Return the details of each draft token as numbers [B, M, D], which `details_of` reads.

    ``agreed`` [B, M] is standard verification's verdict, ``drawn`` [B, M, V] are the draft's distributions, if it has
    any.
    """
    size = evidence.target_logits.shape[-1]
    best = evidence.target_probs[:, :-1].topk(min(TOP, size))
    own = [agreed, evidence.token_probs, evidence.entropy, evidence.token_ranks.clamp(max=size)]
    if drawn is not None:
        own.append(evidence.of_tokens(drawn))
    return torch.cat((torch.stack([each.float() for each in own], -1), best.values, best.indices), -1)


def details_of(table: Sequence[Sequence[float]], vocab_size: int) -> tuple[TokenDetails, ...]:
    """Return the details of a row's tokens, from its `detail_columns` on the host [M, D]."""
    top = min(TOP, vocab_size)
    details = []
    for own, prob, entropy, rank, *rest in table:
        drawn = rest[: -2 * top]
        alternatives = zip(map(int, rest[-top:]), rest[-2 * top : -top], strict=True)
        details.append(
            TokenDetails(
                agreed=bool(own),
                target_prob=prob,
                draft_prob=drawn[0] if drawn else None,
                rank=int(rank) if rank < vocab_size else None,
                entropy=entropy,
                alternatives=tuple(alternatives),
            )
        )
    return tuple(details)
