"""Every right answer to a problem: the steps it may take, in which order, in which words.

One description serves the writer (`render`) and `Checker`: a
*clause* computes one step, and a *template* says it as a row of slots, each a choice between
alternatives. A style is a taste in templates, orders and alternatives, never in arithmetic:

* ``equation``: the equation first, steps in the order they are told;
* ``story``: the deed first, in words, products before everything else, the rest from the last told to the first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from judge_decoding.reference.problems import Problem

Style = Literal["equation", "story"]
STYLES: tuple[Style, Style] = ("equation", "story")
Slots = tuple[tuple[tuple[str, ...], ...], ...]
"""A row of slots; a slot is a tuple of alternatives; an alternative is a tuple of tokens."""

TOKEN = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]|\n")
"""What one token is: a word, a number or a sign, with the space before it."""

SYMBOLS = {"+": " +", "-": " -", "*": " *"}


def split_tokens(text: str) -> list[str]:
    """The tokens of ``text``; joined together they are ``text`` again."""
    return TOKEN.findall(text)


# In a template [a|b|] is a choice, most usual first (an empty one may be left out), {x} {y} {z} are the
# operands and the result, {s} the operation's sign, {item} and {holder} what is counted.
_NEXT = "[ Then| Next| Now| After that| So| From there| In this step]"
_MAYBE = "[| Then| Now| Next| So| Here| Again]"

EQUATION = (
    _MAYBE
    + " {x}{s} {y} = {z}, [so|hence|thus|meaning|that is] [there are|we have|we count|we see|we hold] {z} {item}.",
    "[ Take| With| From| Given| Using] {x} and {y}: {x}{s} {y} = {z} {item}[ here| so far| now| at this point| in all].",
    "[ We compute| We work out| Compute| Write| Look at] {x}{s} {y} = {z}, [the new count|the next value|the value here|the result of this step|what we hold] [is|being] {z}.",
)
STORY = {
    "+": (
        _NEXT
        + ", [adding|bringing|joining|moving|carrying] {y} [to|over to|up to|onto|across to] {x} [gives us|makes|leads to|brings us to|results in] {z} {item}.",
        _NEXT
        + " [when|once|as|because] {y} more [join|come to|are put with|go to] {x}, the [count|number|amount|pile] [becomes|grows to|rises to|goes up to] {z} {item}.",
        _NEXT
        + " [we see that|we know that|we find that|it is clear that] {x} plus {y} [is|equals|makes|comes to] {z} {item}.",
    ),
    "-": (
        _NEXT
        + ", [taking|removing|giving up|putting aside|losing] {y} [from|out of|away from|off] {x} [leaves us|leaves|leads to|brings us to|results in] {z} {item}.",
        _NEXT
        + " [when|once|as|because] {y} of the {x} [leave|are gone|go away|are lost], the [count|number|amount|pile] [becomes|falls to|drops to|goes down to] {z} {item}.",
        _NEXT
        + " [we see that|we know that|we find that|it is clear that] {x} minus {y} [is|equals|leaves|comes to] {z} {item}.",
    ),
    "*": (
        _NEXT
        + ", [counting|having|holding|looking at] {x} [groups|lots|sets|{holder}] of {y} [gives us|makes|leads to|brings us to|results in] {z} {item}.",
        _NEXT
        + " [when|once|as|because] each of {x} [groups|lots|sets|{holder}] [holds|has|keeps|counts] {y}, the [count|number|amount|pile] [becomes|reaches|is|comes to] {z} {item}.",
        _NEXT
        + " [we see that|we know that|we find that|it is clear that] {x} times {y} [is|equals|makes|comes to] {z} {item}.",
    ),
}
OPENING = {
    "equation": "[ Solution| Working| Steps| Calculation| Plan] [in numbers|in figures|in short|with numbers|with signs]:",
    "story": "[ Let us| We can| We will| Now we] [work this out|solve this|count the {item}|think about this|go through this] [step by step|in order|slowly|with care|bit by bit].",
}
CLOSING = {
    "equation": "[ The answer is| The result is| So the answer is| Answer:| Result:] {z}.",
    "story": "[ In the end| All in all| Finally| That is all, and| To sum up], [there are|we are left with|we end with|it comes to|the answer is] {z} {item}.",
}


@cache
def _slots(template: str, item: str, holder: str) -> Slots:
    """Read a template; {x} {y} {z} {s} stay as they are, to be filled step by step."""
    template = template.replace("{item}", item).replace("{holder}", holder)
    slots: list[tuple[tuple[str, ...], ...]] = []
    for choice, plain in re.findall(r"( ?\[[^\]]*\])|( ?\{[xyzs]\}|[^\[{]+(?<! )| )", template):
        if choice:
            space, body = choice.startswith(" "), choice.strip(" ")[1:-1]
            words = [(" " + w if space and w else w) for w in body.split("|")]
            slots.append(tuple(tuple(split_tokens(w)) for w in words))
        elif "{" in plain:
            slots.append(((plain,),))
        else:
            slots.extend(((token,),) for token in split_tokens(plain))
    return tuple(slots)


@dataclass(frozen=True, slots=True)
class State:
    """How far a solution has come: terms still to be summed, terms worked out, the running total."""

    left: frozenset[int]
    known: frozenset[int]
    total: int | None = None

    @staticmethod
    def start(problem: Problem) -> State:
        """Nothing summed yet; the terms that the question states are known."""
        stated = frozenset(i for i, t in enumerate(problem.terms) if t.derivation is None)
        return State(frozenset(range(len(problem.terms))), stated)

    @property
    def done(self) -> bool:
        """Whether all terms are in the total."""
        return not self.left


@dataclass(frozen=True, slots=True)
class Step:
    """One computation ``x op y = z`` that is right from some state, and the state it leads to."""

    op: str
    x: int
    y: int
    z: int
    after: State


def next_steps(problem: Problem, state: State) -> Iterator[Step]:
    """Every right step from ``state``: work out a derived term, or bring a known one into the total."""
    terms = problem.terms
    for i in sorted(state.left - state.known):
        op, x, y = terms[i].derivation or ("", 0, 0)
        base = terms[i].base
        if base is None or base in state.known:
            after = State(state.left, state.known | {i}, state.total)
            yield from _both_ways(op, x, y, terms[i].value, after)
    ready = sorted(state.left & state.known)
    for i in ready:
        # A sum must not swallow a person before those counted relative to them are known: the value is
        # still in the text, so this is only a matter of keeping the order natural, not of arithmetic.
        if state.total is not None:
            after = State(state.left - {i}, state.known, state.total + terms[i].sign * terms[i].value)
            if after.total is not None and after.total >= 0:
                op = "+" if terms[i].sign > 0 else "-"
                yield from _both_ways(op, state.total, terms[i].value, after.total, after)
            continue
        for j in ready:
            if i == j or terms[i].sign < 0:
                continue
            total = terms[i].value + terms[j].sign * terms[j].value
            if total >= 0:
                after = State(state.left - {i, j}, state.known, total)
                yield Step("+" if terms[j].sign > 0 else "-", terms[i].value, terms[j].value, total, after)


def _both_ways(op: str, x: int, y: int, z: int, after: State) -> Iterator[Step]:
    yield Step(op, x, y, z, after)
    if op == "+" and x != y:
        yield Step(op, y, x, z, after)


def clause_templates(item: str, holder: str, op: str, style: Style) -> tuple[Slots, ...]:
    """The templates of one step in ``style``."""
    texts = EQUATION if style == "equation" else STORY[op]
    return tuple(_slots(text, item, holder) for text in texts)


def opening(problem: Problem, style: Style) -> Slots:
    """The sentence before the first step."""
    return _slots(OPENING[style], problem.item, problem.holder)


def closing(problem: Problem, style: Style) -> Slots:
    """The sentence that tells the answer."""
    return _slots(CLOSING[style], problem.item, problem.holder)


def fill(alternative: tuple[str, ...], step: Step | None) -> tuple[str, ...]:
    """Put the step's numbers and sign into an alternative."""
    if step is None or len(alternative) != 1 or "{" not in alternative[0]:
        return alternative
    values = {" {x}": f" {step.x}", " {y}": f" {step.y}", " {z}": f" {step.z}", "{s}": SYMBOLS[step.op]}
    return (values[alternative[0]],)


@dataclass(frozen=True, slots=True)
class Taste:
    """Which of the right answers a writer prefers.

    ``story`` and ``mixed`` are the shares of answers in story style and of those that change style clause by
    clause; the rest is equation style. Alternatives are drawn with weight ``1 / rank**slope``, by their
    rank in the template or, for a ``contrary`` writer, counted from the end.
    """

    story: float
    mixed: float
    slope: float = 1.5
    contrary: bool = False

    def choose(self, rng: random.Random, count: int) -> int:
        """Index of one of ``count`` alternatives."""
        index = rng.choices(range(count), weights=_weights(count, self.slope))[0]
        return count - 1 - index if self.contrary else index


@cache
def _weights(count: int, slope: float) -> tuple[float, ...]:
    return tuple((rank + 1) ** -slope for rank in range(count))


def _order(step: Step, state: State, style: Style) -> tuple[int, int]:
    """Sort key of a step in a style's favourite order; the smallest is taken first."""
    new = (step.after.known - state.known) or (state.left - step.after.left)
    derives = step.after.known != state.known
    if style == "story":
        return (0 if derives else 1, -max(new))
    return (max(new), 0 if derives else 1)


def choose_step(problem: Problem, state: State, style: Style, rng: random.Random) -> Step:
    """The style's favourite next step, or now and then any right one."""
    steps = list(next_steps(problem, state))
    if rng.random() < 0.15:
        return rng.choice(steps)
    return min(steps, key=lambda step: _order(step, state, style))


def write(slots: Slots, step: Step | None, taste: Taste, rng: random.Random) -> list[str]:
    """The tokens of one sentence: every slot filled, every choice made by ``taste``."""
    words: list[str] = []
    for slot in slots:
        words.extend(fill(slot[taste.choose(rng, len(slot)) if len(slot) > 1 else 0], step))
    return words


@dataclass(frozen=True, slots=True)
class Clause:
    """The tokens of one sentence of an answer; ``step`` is None for the opening."""

    tokens: tuple[str, ...]
    step: Step | None


def render(problem: Problem, taste: Taste, rng: random.Random) -> list[Clause]:
    """Write one right answer to ``problem``, sentence by sentence."""
    draw = rng.random()
    mixed = draw < taste.mixed
    doc_style: Style = "story" if draw < taste.mixed + taste.story else "equation"

    def style() -> Style:
        return rng.choice(("equation", "story")) if mixed else doc_style

    clauses = [Clause(tuple(write(opening(problem, style()), None, taste, rng)), None)]
    state, order = State.start(problem), style()
    step: Step | None = None
    while not state.done:
        step = choose_step(problem, state, order, rng)
        templates = clause_templates(problem.item, problem.holder, step.op, style())
        template = templates[taste.choose(rng, len(templates))]
        clauses.append(Clause(tuple(write(template, step, taste, rng)), step))
        state = step.after
    clauses.append(Clause(tuple(write(closing(problem, style()), step, taste, rng)), step))
    return clauses
