"""Score given answers as drafts: how much of them would each rule keep? The opening experiment of Judge Decoding.

Answers by people or strong models are correct, yet standard verification keeps little of them (arXiv 2501.19309,
section 3). Here such a text is proposed to the target, M tokens per round, and a rule keeps the longest prefix it
accepts, as in decoding; one token of the target follows. The text then continues *unchanged*: after a rejected token,
and after a fully accepted draft, the text's own token stands in for the target's, and the next round starts after it.
So a rejected position counts as one correction. This is an idealisation: after a correction a real answer would
diverge, so the more a rule rejects, the less its figures say about decoding. Temperature is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from judge_decoding.bounds import check_bounds
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.rounds import Cause, Round
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.sampling import Processor
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.acceptance import Acceptance
from judge_decoding.evaluation.texts import TokenizedAnswer
from judge_decoding.models.abilities import check_reads
from judge_decoding.models.teacher_forcing import ForcedOutputs, read_given
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence
from judge_decoding.rules.spelling import as_rule
from judge_decoding.rules.verification import decide


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """How texts are scored.

    Attributes:
        num_draft_tokens: the draft lengths M to try. A length beyond the end of an answer proposes all that remains.
        batch_tokens: maximum number of tokens in a forward pass, and of the target's distributions in memory.
        shown: number of texts, from the first, whose rounds are all stored.

    Raises:
        JudgeDecodingError: a count below 1.
    """

    num_draft_tokens: tuple[int, ...] = (16,)
    batch_tokens: int = 1024
    shown: int = 5

    def __post_init__(self) -> None:
        check_bounds(self)


def check_rule(rule: VerificationRule) -> None:
    """Check that a rule can verify a text from its tokens alone.

    Raises:
        JudgeDecodingError: the rule needs more than the tokens.
    """
    for needed, what in ((rule.needs_draft_probs, "probabilities"), (rule.needs_draft_hidden, "hidden states")):
        if needed:
            raise JudgeDecodingError(
                f"The rule {rule} reads the draft's {what}, and a text has none; use a rule that does not need them."
            )


@torch.inference_mode()
def score(
    decoder: JudgeDecoder,
    texts: Sequence[TokenizedAnswer],
    rules: Sequence[VerificationRule | str],
    config: ScoreConfig | None = None,
    *,
    progress: Callable[[], None] = lambda: None,
) -> list[Acceptance]:
    """Measure what each rule keeps of ``texts`` at each draft length: rule by rule, the lengths in the given order.

    The target reads every text once, whatever the number of rules and lengths.

    Args:
        decoder: provides the target; its draft is not used.
        texts: answers with their prompts.
        rules: verification rules, such as ``Exact()``, or their spellings.
        config: draft lengths and memory limits.
        progress: called after each text.

    Raises:
        JudgeDecodingError: there are no texts, or a rule needs more of a draft than its tokens.
    """
    config = config or ScoreConfig()
    if not texts:
        raise JudgeDecodingError("There is no text to score; give one or more.")
    given = [as_rule(rule, decoder.judge) for rule in rules]
    for rule in given:
        check_rule(rule)
    found = [Acceptance(rule, count) for rule in given for count in config.num_draft_tokens]
    sources = {rule.source for rule in given if rule.source}
    reading: dict[int, _ScoringState] = {}
    check_reads(decoder.target)
    both = [(*text.prompt_ids, *text.ids) for text in texts]
    # Logits are needed for each answer token, and for the position after the last one.
    wanted = [range(len(text.prompt_ids), len(ids) + 1) for text, ids in zip(texts, both, strict=True)]
    for piece in read_given(decoder.target, both, wanted, sources=sources, batch_tokens=config.batch_tokens):
        text = texts[piece.number]
        if piece.number not in reading:
            reading[piece.number] = _ScoringState(text, found, decoder.processor(text.prompt_ids, len(text.ids)))
        answer = reading[piece.number]
        answer.push(piece)
        if answer.finished:
            for acceptance, walk in zip(found, answer.walks, strict=True):
                acceptance.add(piece.number, walk.rounds, keep=piece.number < config.shown)
            del reading[piece.number]
            progress()
    return found


class _RuleProgress:
    """The progress of one rule through a text, round by round."""

    def __init__(self, rule: VerificationRule, num_draft_tokens: int) -> None:
        self.rule, self.num_draft_tokens = rule, num_draft_tokens
        self.at = 0
        self.rounds: list[Round] = []

    def advance(self, ids: Sequence[int], whole: Evidence, states: Mapping[HiddenSource, Tensor], first: int) -> None:
        """Run all rounds that ``whole``, the evidence for the tokens from ``first`` on, suffices for."""
        known = first + whole.draft_ids.shape[1]
        while self.at < len(ids) and (end := min(self.at + self.num_draft_tokens, len(ids))) <= known:
            hidden = states[self.rule.source][None] if self.rule.source else None
            window = whole.window(self.at - first, end - self.at, hidden)
            following = ids[end] if end < len(ids) else None
            self.rounds.append(event := _round(self.rule, window, following))
            self.at += len(event.token_ids)


class _ScoringState:
    """A text being read: the target's logits and states for the part that some walk still needs."""

    def __init__(self, text: TokenizedAnswer, found: Sequence[Acceptance], processor: Processor | None = None) -> None:
        self._text, self._processor = text, processor
        self._num_read = 0
        self._first = 0
        self._logits: Tensor | None = None
        self._states: dict[HiddenSource, Tensor] = {}
        self.walks = [_RuleProgress(each.rule, each.num_draft_tokens) for each in found]

    @property
    def finished(self) -> bool:
        """Whether all rules have reached the end of the text."""
        return all(walk.at >= len(self._text.ids) for walk in self.walks)

    def push(self, piece: ForcedOutputs) -> None:
        """Add a piece, and advance all walks as far as possible."""
        logits, states = self._processed(piece.logits), dict(piece.states)
        if self._logits is not None:
            logits = torch.cat((self._logits, logits))
            states = {source: torch.cat((self._states[source], new)) for source, new in states.items()}
        ids = self._text.ids
        known = ids[self._first : self._first + len(logits) - 1]
        states = {source: each.to(logits.device) for source, each in states.items()}
        whole = Evidence(
            draft_ids=torch.tensor([known], dtype=torch.long, device=logits.device), target_logits=logits[None]
        )
        for walk in self.walks:
            walk.advance(ids, whole, states, self._first)
        # Keep the last row: its token has not been read yet, so its state is missing.
        passed = min(min(walk.at for walk in self.walks) - self._first, len(logits) - 1)
        self._logits = logits[passed:].clone()  # not a view, which would keep the passed part in memory
        self._states = {source: each[passed:] for source, each in states.items()}
        self._first += passed

    def _processed(self, logits: Tensor) -> Tensor:
        """Process the next logits [n, V] as decoding would."""
        self._num_read += len(logits)
        if self._processor is None:
            return logits
        known = [*self._text.prompt_ids, *self._text.ids[: self._num_read - 1]]
        return self._processor(torch.tensor([known], device=logits.device), logits[None])[0]


def _round(rule: VerificationRule, evidence: Evidence, following: int | None) -> Round:
    """Verify a window of a text as a draft; ``following`` is the text's next token, None at the end of the text.

    The round's correction or bonus token is the text's own token, not the target's.
    """
    ids: list[int] = evidence.draft_ids[0].tolist()
    verdicts = decide(rule, evidence)
    agreed, accepted = verdicts.agreed[0].tolist(), int(verdicts.accepted[0])
    causes = [Cause.AGREED if good else Cause.RESCUED for good in agreed[:accepted]]
    tokens = ids[:accepted]
    if accepted < len(ids):
        tokens, causes = ids[: accepted + 1], [*causes, Cause.CORRECTION]
    elif following is not None:
        tokens, causes = [*ids, following], [*causes, Cause.BONUS]
    keepers = [rule.parts[part].name for part in verdicts.part[0].tolist()]
    scores = verdicts.scores
    return Round(
        draft_ids=tuple(ids),
        token_ids=tuple(tokens),
        causes=tuple(causes),
        target_ids=tuple(evidence.target_ids[0].tolist()),
        scores=None if scores is None else tuple(scores[0].tolist()),
        rescuers=tuple(keepers[i] if cause is Cause.RESCUED else "" for i, cause in enumerate(causes)),
    )
