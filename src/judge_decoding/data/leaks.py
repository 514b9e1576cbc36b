"""Find questions that also occur in other data: equal, or one contained in the other, ignoring case and white space.

The same question may be rendered with another template, another system message, or another request after it. Short
questions, which may be part of any text, must match as a whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError

LONG = 30
"""Length in characters from which a question is not contained in another one by chance."""


def same_question(question: str) -> str:
    """Normalise a question, so that questions that differ only in case and white space become equal."""
    return " ".join(question.casefold().split())


def occur_in(questions: Sequence[Sequence[str]], others: Iterable[str]) -> list[bool]:
    """Whether each question occurs in the texts ``others``; it is given in all its forms, such as the whole prompt."""
    texts = [[same_question(form) for form in forms] for forms in questions]
    there = {same_question(text) for text in others}
    # Search for each text in all others at once.
    all_there, all_asked = "\0".join(there), "\0".join(form for forms in texts for form in forms)
    inside = [text for text in there if len(text) >= LONG and text in all_asked]
    return [
        any(
            form in there or (len(form) >= LONG and form in all_there) or any(text in form for text in inside)
            for form in forms
        )
        for forms in texts
    ]


def relatives(questions: Iterable[str]) -> dict[str, str]:
    """Map each question to the shortest related one: one contains the other, or both are related to a third.

    All are normalised by `same_question`. Training on a question leaks its relatives (`occur_in`).
    """
    texts = sorted({same_question(question) for question in questions}, key=lambda text: (len(text), text))
    joined, starts = "\0".join(texts), list(accumulate((len(text) + 1 for text in texts), initial=0))
    first = list(range(len(texts)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for i, text in enumerate(texts):
        place = joined.find(text, starts[i + 1]) if len(text) >= LONG else -1  # only longer questions can contain it
        while place >= 0:
            j = bisect_right(starts, place) - 1
            low, high = sorted((root(i), root(j)))
            first[high] = low
            place = joined.find(text, starts[j + 1])
    return {text: texts[root(i)] for i, text in enumerate(texts)}


def check_not_trained_on(questions: Sequence[Sequence[str]], trained: Iterable[str]) -> None:
    """Check that no question, given in all its forms (see `occur_in`), is among those a head is trained on."""
    shared = sum(occur_in(questions, trained))
    if shared:
        raise JudgeDecodingError(
            f"{shared} of the {len(questions)} questions were also used for training, so they would flatter the "
            "judge; use others, or split the questions first (judge-decoding court split)."
        )


def leaks(files: Mapping[str, Sequence[Case]]) -> dict[str, list[str]]:
    """Return the questions that occur in more than one of ``files``, each with the names of the files."""
    shown: dict[str, str] = {}
    for case in (case for cases in files.values() for case in cases):
        shown.setdefault(same_question(case.question), case.question)
    places: dict[str, list[str]] = {key: [] for key in shown}
    for name, cases in files.items():
        for key, there in zip(
            shown, occur_in([[key] for key in shown], (case.question for case in cases)), strict=True
        ):
            if there:
                places[key].append(name)
    return {shown[key]: names for key, names in places.items() if len(names) > 1}
