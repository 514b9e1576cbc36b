"""Decide which decoding methods are measured, and with which draft lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.backends.static.compiling import CompileProgress
from judge_decoding.decoding.engines import Backend
from judge_decoding.decoding.lengths import CostOptimal
from judge_decoding.evaluation.bench.contenders import (
    Assistance,
    Contender,
    ContenderLabel,
    Generate,
    MethodFamily,
    OwnLoop,
)
from judge_decoding.rules import Exact, Judge, VerificationRule

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Draft lengths to choose from."""
CONFIDENCE = 0.4
"""Default confidence threshold of assisted generation: a draft ends below it, so its length is only a maximum."""
CONFIDENT_LENGTHS = (8, 16, 32)
BEST = "best"
DEFAULTS = "defaults"
POLICY = "cost-optimal"
EQUAL = "equal"
OWN = "its own"


@dataclass(frozen=True, slots=True)
class Models:
    """The models to measure.

    Attributes:
        decoder: target, draft and judge, not compiled.
        max_new_tokens: token budget of an answer.
        compiled: the same, compiled; None to measure only the eager back end.
    """

    decoder: JudgeDecoder
    max_new_tokens: int
    compiled: JudgeDecoder | None = None

    @classmethod
    def of(cls, decoder: JudgeDecoder, max_new_tokens: int, progress: CompileProgress) -> tuple[Models, str]:
        """Compile the models of ``decoder``; also return the reason if that is not possible."""
        compiled = JudgeDecoder(
            decoder.target, decoder.tokenizer, decoder.draft, decoder.judge, num_draft_tokens=decoder.num_draft_tokens,
            backend="static",
        )  # fmt: skip
        reasons = "; ".join(compiled.compile(progress))
        return cls(decoder, max_new_tokens, None if reasons else compiled), reasons

    @property
    def draft(self) -> PreTrainedModel | None:
        """The draft model; None without a draft, or if the draft is not a model."""
        return self.decoder.draft_model

    @property
    def backend(self) -> Backend:
        """The back end of the main rows: static where the models can be compiled."""
        return "eager" if self.compiled is None else "static"

    def _loop(
        self, family: MethodFamily, rule: VerificationRule, length: int, note: str = "", backend: Backend | None = None
    ) -> OwnLoop:
        backend = backend or self.backend
        decoder = self.compiled if backend == "static" and self.compiled is not None else self.decoder
        return OwnLoop(ContenderLabel(family, backend, length, note), decoder, self.max_new_tokens, rule, length)

    def generate(self) -> Generate:
        """Return plain ``generate`` of transformers."""
        return Generate(ContenderLabel("generate"), self.decoder.target, self.decoder.end_ids, self.max_new_tokens)

    def assisted(self, assistance: Assistance, note: str) -> Generate:
        """Return assisted generation of transformers."""
        length = assistance.num_draft_tokens or 0
        confident = f"confidence {assistance.confidence:g}" if assistance.confidence else ""
        label = ContenderLabel("assisted", num_draft_tokens=length, note=", ".join(filter(None, (note, confident))))
        target, end_ids = self.decoder.target, self.decoder.end_ids
        return Generate(label, target, end_ids, self.max_new_tokens, self.draft, assistance)

    def static_assisted(self, like: Contender) -> Generate:
        """Return assisted generation ``like`` this one, with a static cache and a compiled target forward."""
        assert isinstance(like, Generate)
        return replace(like, label=replace(like.label, backend="static"), static=True)

    def plain(self) -> OwnLoop:
        """Return our loop without a draft."""
        loop = self._loop("plain", Exact(), 0)
        return replace(loop, decoder=loop.decoder.alone(), num_draft_tokens=1)

    def exact(self, length: int, note: str = "", backend: Backend | None = None) -> OwnLoop:
        """Return our loop with standard verification."""
        return self._loop("exact", Exact(), length, note, backend)

    def judge(self, length: int, note: str = "", backend: Backend | None = None) -> OwnLoop:
        """Return our loop with the judge at its head's threshold."""
        assert self.decoder.judge is not None
        return self._loop("judge", Judge(self.decoder.judge), length, note, backend)

    def policy(self, start: int) -> OwnLoop:
        """Return standard verification with the cost-optimal draft length."""
        loop = self._loop("exact", Exact(), start)
        return replace(loop, label=replace(loop.label, num_draft_tokens=0, note=POLICY), policy=CostOptimal)


def candidates(models: Models, batch_size: int, lengths: Sequence[int] = ()) -> dict[str, list[Contender]]:
    """Return the methods to choose the best draft length from, by kind; ``lengths`` defaults to `LENGTHS`."""
    lengths = lengths or LENGTHS
    if models.decoder.draft is None:
        return {}
    found: dict[str, list[Contender]] = {}
    if models.draft is not None and batch_size == 1:
        chosen = [Assistance(n, 0.0) for n in lengths] + [Assistance(n, CONFIDENCE) for n in CONFIDENT_LENGTHS]
        found["assisted"] = [models.assisted(one, BEST) for one in chosen]
    found["exact"] = [models.exact(n, BEST) for n in lengths]
    if models.decoder.judge is not None:
        found["judge"] = [models.judge(n, BEST) for n in lengths]
    return found


def contenders(
    models: Models, best: Mapping[str, Contender], equal: Sequence[int], static: Contender | None = None
) -> list[Contender]:
    """Return the methods to measure, given the fastest of `candidates`.

    At the draft lengths ``equal``, assisted generation and our standard verification are compared, besides the best
    length of each; our own best length is always among them. ``static`` is assisted generation with a static cache, if
    that can be measured.
    """
    found: list[Contender] = [models.generate(), models.plain()]
    if not best:
        return found
    eager = models.compiled is not None
    exact = best["exact"].label.num_draft_tokens
    if "assisted" in best:
        found += [models.assisted(Assistance(), DEFAULTS), best["assisted"], *([static] if static else [])]
        found += [models.assisted(Assistance(n, 0.0), EQUAL) for n in sorted({exact, *equal})]
    found.append(best["exact"])
    found += [models.exact(n, EQUAL) for n in sorted({*equal} - {exact})]
    found.append(models.policy(exact))
    if eager:
        found.append(models.exact(exact, backend="eager"))
    if "judge" in best:
        length, own = best["judge"].label.num_draft_tokens, models.decoder.num_draft_tokens
        found.append(best["judge"])
        if own != length:
            found.append(models.judge(own, OWN))
        if eager:
            found.append(models.judge(length, backend="eager"))
    return found
