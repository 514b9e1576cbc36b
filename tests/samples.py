"""Made-up answers with their rounds, for the tests of the report."""

from __future__ import annotations

from typing import Any

from judge_decoding.core.samples import Sample, SampleDetails, SampleRound

HOSTILE = (
    "</script><script>document.title = 'taken'; window.taken = 1</script><!--<script>"
    '<img src=x onerror="window.taken = 1">"\'&`${7 * 7}`{{ 7 * 7 }}\u0000\u202e\u2028\u2066</title></textarea>]]>'
)


def details(agreed: list[bool], alternatives: list[list[tuple[int, float]]] | None = None) -> SampleDetails:
    """Details of draft tokens of which these are agreed."""
    count = len(agreed)
    return SampleDetails(
        agreed=tuple(agreed),
        target_probs=(0.125,) * count,
        draft_probs=(0.75,) * count,
        ranks=tuple(0 if own else 1 for own in agreed),
        entropies=(1.5,) * count,
        alternatives=tuple(map(tuple, alternatives or [[(20, 0.625), (11, 0.125)]] * count)),
    )


def known(**fields: Any) -> Sample:
    """Two rounds decoded at threshold 0.5, with scores that turn at 0.2, 0.3, 0.6 and 0.8.

    Round 1: a (agreed), b (rescued, .8), c (agreed), d (rejected, .3), e (.25, after it); correction X.
    Round 2: f (agreed), g (rescued, .6); bonus Y.
    """
    first = SampleRound(
        token_ids=(10, 11, 12, 23),
        pieces=("a", " b", " c", " X"),
        causes=("agreed", "rescued", "agreed", "correction"),  # type: ignore[arg-type]  # read as from a file
        rescuers=("", "judge", "", ""),
        draft_ids=(10, 11, 12, 13, 14),
        draft_pieces=("a", " b", " c", " d", " e"),
        target_ids=(10, 20, 12, 23, 24, 25),
        scores=(0.99, 0.8, 0.97, 0.3, 0.25),
        details=details([True, False, True, False, False]),
    )
    second = SampleRound(
        token_ids=(15, 16, 26),
        pieces=("\nf", " g", " Y"),
        causes=("agreed", "rescued", "bonus"),  # type: ignore[arg-type]
        rescuers=("", "judge", ""),
        draft_ids=(15, 16),
        draft_pieces=("\nf", " g"),
        target_ids=(15, 21, 26),
        scores=(0.2, 0.6),
        details=details([True, False]),
        stopped=True,
    )
    about: dict[str, Any] = {
        "question": "What?",
        "text": "a b c X\nf g Y",
        "rounds": (first, second),
        "rule": "judge(threshold=0.5)",
        "threshold": 0.5,
        "vocabulary": {11: " b", 20: " bee", 21: " gee", 23: " X", 24: " E", 25: " F", 15: "\nf", 26: " Y"},
    }
    return Sample(**{**about, **fields})


def hostile(text: str = HOSTILE) -> Sample:
    """One whose every text is ``text``."""
    event = SampleRound(
        token_ids=(1, 2), pieces=(text, text), causes=("rescued", "correction"),  # type: ignore[arg-type]
        rescuers=(text, ""), draft_ids=(1, 3), draft_pieces=(text, text), target_ids=(4, 2, 5), scores=(0.9, 0.1),
        details=details([False, False], [[(4, 0.5)], [(2, 0.5)]]),
    )  # fmt: skip
    return Sample(
        question=text, text=text + text, rounds=(event,), reference=text, rule=text, threshold=0.5, target=text,
        draft=text, judge=text, target_text=text + "!", target_correct=True, correct=False,
        vocabulary={2: text, 4: text, 5: text}, special_ids=(2,),
    )  # fmt: skip
