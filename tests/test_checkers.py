"""Right or wrong: each checker on answers worked out by hand, unit tests, and checkers of installed packages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from judge_decoding import JudgeDecodingError
from judge_decoding.tasks.checkers import checker_of
from test_rule_spelling import install

PAGE = Path(__file__).parents[1] / "docs" / "court.md"


@pytest.mark.parametrize(
    ("spelling", "answer", "reference", "right"),
    [
        ("number", "3 + 4 = 7, so 7.0 apples", "#### 7", True),
        ("number", "It is 1,000.50", "1000.5", True),
        ("number", "7 of 12", "7", False),
        ("number", "none at all", "7", False),
        ("number", "7", "seven", None),
        ("number", "007", "7", True),
        ("choice", "So the answer is (C).", "C", True),
        ("choice", "A, no, B", "B) Paris, not A", True),
        ("choice", "A", "(B)", False),
        ("choice", "(B). I am sure of it.", "B", True),
        ("choice", "B. A cold wind would not do.", "B", True),
        ("choice", r"\boxed{\text{B}}, since A and C are wrong", "B", True),
        ("choice", "Answer: B. Neither A nor C fits", "B", True),
        ("choice", "Answer: C. Neither A nor B", "B", False),
        ("choice", "it is the second", "B", False),
        ("choice", "A", "the first", None),
        ("exact", " the  cat\n", "the cat", True),
        ("exact", "The cat", "the cat", False),
        (r"regex:\\boxed\{(.*?)\}", r"\boxed{1} or rather \boxed{x  + 1}", r"so \boxed{x + 1}", True),
        (r"regex:\\boxed\{(.*?)\}", r"\boxed{2}", "2", True),
        (r"regex:\\boxed\{(.*?)\}", r"\boxed{2}", "3", False),
        (r"regex:\\boxed\{(.*?)\}", "2", "2", False),
    ],
)
def test_verdicts(spelling: str, answer: str, reference: str, right: bool | None) -> None:
    assert checker_of(spelling)("the question", answer, reference) is right


STUB = 'from math import gcd\n\n\ndef coprime(a: int, b: int) -> bool:\n    """Whether a and b share no factor."""\n'
CHECK = "def check(f):\n    assert f(8, 9)\n    assert not f(8, 6)\n\n\ncheck(coprime)"
BODY = "    return gcd(a, b) == 1\n"
WHOLE = "def coprime(a, b):\n    return gcd(a, b) == 1\n"


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (STUB, BODY, True),
        (STUB, "    return gcd(a, b) > 1\n", False),
        (STUB, f"Here it is:\n\n```python\n{WHOLE}```\nIt uses gcd.", True),
        (STUB, f"```\nfrom math import gcd\n{WHOLE}", True),
        ("Write coprime(a, b).", f"Sure.\n```py\nfrom math import gcd\n{WHOLE}```\n```\ncoprime(1)\n```", True),
        ("Write coprime(a, b).", f"from math import gcd\n{WHOLE}", True),
        ("Write coprime(a, b).", f"```python\n{WHOLE}```", False),  # gcd is nowhere
        (STUB, f"{BODY}\nraise SystemExit", False),
        (STUB, "I cannot.", False),
    ],
)
def test_unit_tests(question: str, answer: str, right: bool) -> None:
    assert checker_of("tests", allow_code=True, sandbox="none")(question, answer, CHECK) is right


def test_tests_that_would_not_run_are_refused() -> None:
    tests = f"if __name__ == '__main__':\n    {CHECK.splitlines()[0]}"
    with pytest.raises(JudgeDecodingError, match="never run here"):
        checker_of("tests", allow_code=True, sandbox="none")("Write it.", WHOLE, tests)


def test_code_runs_only_where_allowed() -> None:
    with pytest.raises(JudgeDecodingError):
        checker_of("tests")


@pytest.mark.parametrize(
    ("spelling", "message"),
    [("numbr", "did you mean number?"), ("", "There is no checker"), ("regex:(", "not a regular expression")],
)
def test_checkers_that_are_not_there(spelling: str, message: str) -> None:
    with pytest.raises(JudgeDecodingError, match=re.escape(message)):
        checker_of(spelling)


def example() -> tuple[str, str]:
    """The package that the page shows: its module and its pyproject.toml."""
    page = PAGE.read_text(encoding="utf-8").partition("A checker of your own")[2]
    source, project = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert source
    assert project
    return source[1], project[1]


def test_an_installed_package_brings_a_checker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, *example())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_checkers", raising=False)
    check = checker_of("acme_start")
    assert check("q", " Paris, of course", "paris") is True
    assert check("q", "Not Paris", "paris") is False
    with pytest.raises(JudgeDecodingError, match="did you mean acme_start"):
        checker_of("acme_strat")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonsense_that_is_not_there", "cannot be imported (ModuleNotFoundError"),
        ("check = 5", "is not a function"),
        ("def check(q, a, r): raise RuntimeError('no luck')", "fails (RuntimeError: no luck) for the answer 'abc'"),
        ("def check(q, a): return True", "fails (TypeError"),
        ("def check(q, a, r): return 'yes'", "gives str for the answer 'abc'"),
    ],
)
def test_a_package_whose_checker_is_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, message: str
) -> None:
    install(
        tmp_path,
        source,
        "[project]\nname='bad-checkers'\nversion='1'\n"
        "[project.entry-points.'judge_decoding.checkers']\nbad='bad_checkers:check'\nnumber='bad_checkers:check'",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad_checkers", raising=False)
    assert checker_of("number")("q", "7", "7") is True  # a name that is taken cannot be taken
    with pytest.raises(JudgeDecodingError, match=re.escape(message)) as caught:
        checker_of("bad")("q", "abc", "r")
    assert "The checker bad of the package bad-checkers" in str(caught.value)
