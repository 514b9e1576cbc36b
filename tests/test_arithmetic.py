"""Labels by arithmetic: false equations are found where they stand, and true ones in any dress are left alone."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from judge_decoding import Case
from judge_decoding.labelling.labels.arithmetic import false_equation, label_by_arithmetic
from judge_decoding.labelling.labels.equations import equations


def false(text: str) -> str | None:
    span = false_equation(text)
    return None if span is None else text[slice(*span)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("She has 3 + 4 = 8 eggs.", "8"),
        ("He pays 16 - 3 - 4 = <<16-3-4=10>>10 dollars.", "10"),
        ("He pays 5*10 = $<<5*10=50>>40.", "40"),
        ("It costs $1,200 x 3 = $3,500.", "$3,500"),
        ("350 000 * 2 = 700 001", "700 001"),
        ("She has 20 sheep + 160 sheep + 80 sheep = 250 sheep", "250"),
        ("200 * 40% = 90", "90"),
        ("20% of 50 = 15", "15"),
        ("1/2 + 1/4 = 2/3", "2/3"),
        ("2 1/2 * 2 = 6", "6"),
        ("10 / 3 = 3.5", "3.5"),
        ("2 + 3 = 5 * 2 = 11", "11"),
        ("2(3 + 4) = 13", "13"),
        ("\\frac{12}{4} \\times 5 = 16", "16"),
        ("3 \u2212 5 = 2", "2"),
        ("2^5 = 31", "31"),
        ("4 plus 4 equals 9", "9"),
        ("half of 10 is 5. (4+2=7 pets)", "7"),
        ("Day 1: 20 + 5 = 26", "26"),
        ("60 miles/hour * 3 hours = 190 miles", "190"),
        ("30-minute blocks: 2 * 30-minute = 70 minutes", "70"),
        ("7 = 20 / 4", "20 / 4"),
        ("4 (children) * 3 = 13", "13"),
        ("3 * 4 = 11 + 2 = 13", "11 + 2"),
        ("first 2 + 2 = 4, then 2 + 3 = 6, then 1 + 1 = 3", "6"),
    ],
)
def test_a_false_equation_is_located(text: str, wrong: str) -> None:
    assert false(text) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "She has 3 + 4 = 7 eggs.",
        "He pays 16 - 3 - 4 = $<<16-3-4=9>>9.",
        "800/3=<<800/3=266.6666666666667>>266.67 cups",
        "10 / 3 = 3 whole pieces",
        "11 / 4 = 3",
        "0.5 - 0.4 = 0.09999999999999998",
        "The price is $1,234.50 * 2 = $2,469",
        "40% * 200 = 80",
        "100% - 25% = 75%",
        "1/4 = 25%",
        "(12 / 24) * 100 = 50%",
        "5 + 3 = 8 * 2 = 16",
        "1 1/2 / 1/2 = 3",
        "2 hours * 60 = 120 minutes",
        "2 hours + 30 minutes = 150 minutes",
        "5 * 20 = 100 cents = $1",
        "3 dozen + 2 = 38",
        "x + 8 = 22",
        "2x + 3 = 11",
        "10H + H = 88,000",
        "so n = 40 + 30 = 70",
        "y is 3 times 5 + 2 more than half of 10 + 4 = 99",
        "it was 5:00 + 3 = 8:00",
        "x == 3 + 4 != 8, 3 + 4 <= 8",
        "- 20 + 5 = 25",
        "Day 1 - 20 + 5 = 25",
        "24 eggs in 2 trays * 2 = 96",
        "3 miles less than Reggie = 20 - 3",
        "classmates 25 + his 1 teacher + 1 himself = 27",
        "5 / 0 = 7",
        "9^9^9^9 = 3",
        "0^-1 = 3",
        "2 ^ 0.5 = 1.41",
        "\\frac{1}{0} = 3",
        "= 5 + 3",
        "5 + 3 =",
        "<<5+3=",
        "5 + 3 = ()",
        "",
    ],
)
def test_what_is_true_or_cannot_be_read_is_left_alone(text: str) -> None:
    assert false(text) is None


def test_a_number_that_may_be_cut_off_is_not_judged() -> None:
    assert false_equation("5 * 30 = 15", ended=False) is None
    assert false_equation("5 * 30 = 15 eggs", ended=False) == (9, 11)


@st.composite
def sums(draw: st.DrawFn, depth: int = 2) -> tuple[str, Fraction]:
    """An expression as Python would read it, and its value."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        whole, places = draw(st.integers(0, 9999)), draw(st.integers(0, 2))
        digits = f"{whole:0{places + 1}d}"
        return (f"{digits[:-places]}.{digits[-places:]}" if places else digits), Fraction(whole, 10**places)
    (left, a), (right, b) = draw(sums(depth=depth - 1)), draw(sums(depth=depth - 1))
    operator = draw(st.sampled_from("+-*/"))
    if operator == "/":
        assume(b)
    value = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b
    space = draw(st.sampled_from(["", " "]))
    return f"({left}){space}{operator}{space}({right})", value


@given(expression=sums(), before=st.sampled_from(["", "So ", "He has ", "(", "Then: "]), slip=st.integers(1, 999))
def test_any_expression_is_true_with_its_value_and_false_with_another(
    expression: tuple[str, Fraction], before: str, slip: int
) -> None:
    text, value = expression
    assume("(" in text and value.denominator < 10**6)
    whole = value.numerator // value.denominator
    assert false(f"{before}{text} = {whole} apples") is None
    wrong = f"{whole + 1 + slip}" if whole >= 0 else f"{whole - 1 - slip}"
    assert false(f"{before}{text} = {wrong} apples") == wrong


@given(a=st.integers(0, 10**7), b=st.integers(1, 10**4), slip=st.integers(1, 50))
def test_money_with_thousands_in_gsm8k_notation(a: int, b: int, slip: int) -> None:
    text = f"It costs ${a:,} * {b} = $<<{a}*{b}={a * b}>>"
    assert false(f"{text}{a * b:,}.") is None
    assert false(f"{text}{a * b + slip:,}.") == f"{a * b + slip:,}"


@given(text=st.text(alphabet="0123456789 .,+-*/=()<>$%xX^ab:\n\\frac{}\u2013½", max_size=60) | st.text(max_size=40))
def test_any_text_gives_spans_inside_it(text: str) -> None:
    for found in equations(text):
        assert 0 <= found.start <= found.span[0] < found.span[1] <= len(text)


def test_long_inputs_take_no_time() -> None:
    assert not equations("(" * 300 + "1 + 1" + ")" * 300 + " = 2")
    equations("1 + " * 5000 + "1 = 2")
    equations("9" * 50000 + " * 2 = 3")
    equations("-" * 3000 + "1 = 2")
    equations("(" * 20000 + " = 1 + 1")
    equations("1 = " * 20000)
    equations("<<1+1=2" * 5000)
    equations("<<1+1=2>>2" * 5000)


def test_answers_are_sorted() -> None:
    def case(answer: str, correct: bool | None) -> Case:
        return Case(question="q", answer=answer, correct=correct, writer="m")

    result = label_by_arithmetic(
        [case("1+1=3", False), case("1+1=3", None), case("1+1=2", True), case("1+1=3", True), case("1+1=2", None)]
    )
    assert [len(part) for part in (result.located, result.right, result.accused, result.silent)] == [2, 1, 1, 1]
    assert result.located[0].errors == ((4, 5),)
    assert {found.source for found in result.labelled} == {"arithmetic"}
    assert all(found.located for found in result.labelled)
    assert not case("1+1=2", False).located
