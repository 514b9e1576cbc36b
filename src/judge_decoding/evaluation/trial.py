"""Run decoding methods side by side on the same questions; every table of this project is built from this."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from judge_decoding.core.results import ItemResult
from judge_decoding.core.rounds import Stats
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.decoding.choices import remaining_context
from judge_decoding.decoding.guards import Guard
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.record import RecordedAnswer, ResultKey
from judge_decoding.models.tokenize import Prompt
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.spelling import as_rule
from judge_decoding.tasks.base import Item, guarded
from judge_decoding.tasks.prompt_format import PromptFormat

GREEDY = SamplingParams()


@dataclass(frozen=True, slots=True)
class Method:
    """One decoding method.

    Attributes:
        decoder: the models.
        rule: a rule or its spelling; None for the decoder's own.
        num_draft_tokens: draft length; 0 for the decoder's own, and without a draft.
        sampling: how tokens are chosen. The seed is combined with the item's key, so that each item has its own.
        guards: where nothing may be rescued.
    """

    decoder: JudgeDecoder
    rule: VerificationRule | None = None
    num_draft_tokens: int = 0
    sampling: SamplingParams = GREEDY
    guards: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        if self.rule is not None:
            object.__setattr__(self, "rule", as_rule(self.rule, self.decoder.judge))

    def alone(self) -> Method:
        """Return the method for the target without a draft, with the same sampling."""
        return Method(self.decoder.alone(), sampling=self.sampling)


@dataclass(slots=True)
class Outcome:
    """The results of one method on the items so far."""

    answers: list[ItemResult] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    num_draft_tokens: int = 0

    @property
    def right(self) -> list[bool]:
        """Whether each answer is right, for all answers with a verdict."""
        return [one.correct for one in self.answers if one.correct is not None]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return sum(self.right) / len(self.right)

    @property
    def seconds(self) -> float:
        """The decoding time in seconds."""
        return sum(one.seconds or 0.0 for one in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """The new tokens per second of decoding."""
        return sum(one.tokens for one in self.answers) / self.seconds

    @property
    def tokens_per_answer(self) -> float:
        """The mean length of an answer in tokens, end token included."""
        return sum(one.tokens for one in self.answers) / len(self.answers)


OnAnswer = Callable[[str, Item, ItemResult, Sequence[Generation]], None]
"""Called with each finished answer: the method's name, the item, its result, and the answers to its turns."""


def compare(
    methods: Mapping[str, Method],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    on_answer: OnAnswer = lambda *_: None,
    *,
    batch_size: int = 1,
    known: Mapping[ResultKey, RecordedAnswer] | None = None,
) -> dict[str, Outcome]:
    """Run every method on every item, item by item, so that all methods meet the same state of the machine.

    The order of the methods changes from item to item. The answers are the same whatever ``batch_size``, but above 1
    nothing is timed. Results that are ``known``, by method and item, are not made again.
    """
    known = known or {}
    found = {name: dict[str, ItemResult]() for name in methods}
    stats = {name: Stats() for name in methods}
    names = list(methods)
    for place, first in enumerate(range(0, len(items), batch_size)):
        turn = place % len(names)
        for name in names[turn:] + names[:turn]:
            chosen = items[first : first + batch_size]
            found[name] |= {item.key: known[name, item.key].result for item in chosen if (name, item.key) in known}
            left = [item for item in chosen if item.key not in found[name]]
            for item, generations in zip(left, answers(methods[name], prompt_format, left), strict=True):
                one = found[name][item.key] = answered(prompt_format, item, generations, timed=batch_size == 1)
                for generation in generations:
                    stats[name].merge(generation.stats)
                on_answer(name, item, one, generations)
    return {
        name: Outcome([found[name][item.key] for item in items], stats[name], method.num_draft_tokens)
        for name, method in methods.items()
    }


def answers(method: Method, prompt_format: PromptFormat, items: Sequence[Item]) -> list[list[Generation]]:
    """Return the answers of one method to the turns of each item; the items are decoded as one batch.

    An item whose next turn no longer fits into the context ends before that turn.
    """
    generations: list[list[Generation]] = [[] for _ in items]
    for turn in range(max((len(item.turns) for item in items), default=0)):
        going = [i for i, item in enumerate(items) if len(generations[i]) == turn < len(item.turns)]
        prompts = [
            prompt_format.prompt(items[i], [prompt_format.bare(one.text) for one in generations[i]]) for i in going
        ]
        if turn:
            fits = [has_room(method.decoder, prompt) for prompt in prompts]
            going = [i for i, good in zip(going, fits, strict=True) if good]
            prompts = [prompt for prompt, good in zip(prompts, fits, strict=True) if good]
        if not going:
            break
        seed = method.sampling.seed
        found = method.decoder.generate_batch(
            prompts, prompt_format.budget, batch_size=len(going), rule=method.rule, sampling=method.sampling,
            guards=method.guards, num_draft_tokens=method.num_draft_tokens or None, details=prompt_format.details,
            stop=prompt_format.stop or method.decoder.stop_strings,
            # Each item has its own seed, whichever other items are in the batch.
            seeds=None if seed is None else [zlib.crc32(f"{seed} {items[i].key}".encode()) for i in going],
        )  # fmt: skip
        for i, one in zip(going, found, strict=True):
            generations[i].append(one)
    return generations


def has_room(decoder: JudgeDecoder, prompt: Prompt) -> bool:
    """Whether a prompt leaves room for an answer in the context."""
    length = decoder.encode(prompt).shape[1]
    try:
        return remaining_context(length, decoder.target) > 0
    except JudgeDecodingError:
        return False


def answered(
    prompt_format: PromptFormat, item: Item, generations: Sequence[Generation], *, timed: bool = True
) -> ItemResult:
    """Return the result of an item with these answers to its turns.

    Raises:
        JudgeDecodingError: the task cannot check the answer.
    """
    verdict = None
    if len(generations) == len(item.turns):
        with guarded(prompt_format.task, item.key):
            verdict = prompt_format.task.check(item, prompt_format.bare(generations[-1].text))
            if verdict is not None and not isinstance(verdict, bool):
                raise TypeError(f"check gives {type(verdict).__name__}, not True, False or None")
    stats = Stats()
    for one in generations:
        stats.merge(one.stats)
    return ItemResult(
        item.key,
        verdict,
        rounds=stats.rounds,
        tokens=stats.tokens,
        accepted=stats.accepted,
        seconds=sum(one.seconds for one in generations) if timed else None,
        cut_off=any(one.finish_reason != "stop" for one in generations),
        drafted=stats.drafted,
        positions=stats.positions,
    )
