"""Final numbers: what chat models write, with verdicts worked out by hand, and what must not stop a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_decoding.tasks.base import Item
from judge_decoding.tasks.checkers import number
from judge_decoding.tasks.final import final_number
from judge_decoding.tasks.prompts import Prompts
from judge_decoding.tasks.results import last_number, result_function, same_result
from judge_decoding.tasks.roots import _evaluated, calculated

GROUPING: list[tuple[str, str, bool | None]] = [
    ("#### 1,234,567", "1234567", True),
    ("She sold 1,234,567 of them.", "1,234,567", True),
    ("1,00,000 rupees", "100000", True),
    ("12,34,567", "1234567", True),
    ("9 500 km", "9500", True),
    ("The total is 9\u202f500 km.", "9500", True),
    ("The total is 9\u00a0500.", "9500", True),
    ("The total is 1\u2009234\u2009567.", "1234567", True),
    ("1'234.50 Franken", "1234.5", True),
    ("1\u2019234 Franken", "1234", True),
    ("1_000_000", "1000000", True),
    ("1.234,50 €", "1234.5", True),
    ("1.234.567", "1234567", True),
    ("1 234,5", "1234.5", True),
    ("9500,00 €", "9500", True),
    ("7,5 Stunden", "7.5", True),
    ("Es sind 0,125 Liter.", "0.125", True),
    ("12,50 €", "12.5", True),
    ("-3,5 Grad", "-3.5", True),
    ("1,234", "1.234", False),
    ("1.234", "1234", False),
    ("1,2", "12", False),
    ("The answers are 3,4", "34", False),
    ("The answers are 3,4", "3.4", False),
    ("The point is (3,4)", "3.4", False),
    ("1,2,3", "123", False),
    ("1,2,3", "2.3", False),
    ("1,2,300", "2300", False),
    ("7,5", "75", False),
    ("9 500", "500", False),
    ("12 34", "1234", False),
    ("In 2024 500 came.", "500", True),
    ("1,234,56", "123456", False),
    ("1'000'000", "1000000", True),
    ("10,00,000", "1000000", True),
    ("１，２３４", "1234", True),
    ("12,5%", "0.125", True),
    ("CHF 9'500.-", "9500", True),
    ("1 8", "18", False),
    ("5-10", "-10", False),
]
LATEX: list[tuple[str, str, bool | None]] = [
    (r"So \boxed{9500}.", "9500", True),
    (r"So \boxed{\$9{,}500}.", "9500", True),
    (r"The answer is $9{,}500.", "9500", True),
    (r"The total is 9\,500.", "9500", True),
    (r"$1{,}234.50$", "1234.5", True),
    (r"$$\text{ANSWER: } \$460$$", "460", True),
    (r"\boxed{\frac{3}{4}}", "0.75", True),
    (r"\boxed{\frac{3}{4}}", "4", False),
    (r"\boxed{-\dfrac{3}{4}}", "-0.75", True),
    (r"$2\frac{1}{2}$", "2.5", True),
    (r"\boxed{2\tfrac12}", "2.5", True),
    (r"\frac{9\,500}{2}", "4750", True),
    (r"\[ x = 12 \]", "12", True),
    (r"\(12\)", "12", True),
    (r"\boxed{12\text{ cm}^2}", "12", True),
    (r"\boxed{12\text{ cm}^2}", "2", False),
    (r"\boxed{30^\circ}", "30", True),
    (r"\boxed{50\%}", "50", True),
    (r"\boxed{\textbf{18}}", "18", True),
    (r"\boxed{x = 5}", "5", True),
    (r"\boxed{18} dollars in 7 days", "18", True),
    (r"\boxed{3}, no: \boxed{4}", "4", True),
    (r"\boxed{\boxed{7}}", "7", True),
    (r"\boxed{\sqrt{16}}", "4", True),
    (r"\boxed{2\sqrt{3}}", r"\boxed{\sqrt{12}}", True),
    (r"\boxed{2\sqrt{3}}", "3", False),
    (r"The answer is $\sqrt{16}$.", "4", True),
    (r"$\frac{\sqrt{2}}{2}$", r"$\frac{1}{\sqrt{2}}$", True),
    (r"\boxed{\frac{3\pi}{4}}", "2.356", True),
    (r"\boxed{3 + 4}", "7", True),
    (r"\boxed{2^{10}}", "1024", True),
    (r"\boxed{3 \times 10^{4}}", "30000", True),
    (r"\boxed{\left(\frac{1}{2}\right)^{3}}", "0.125", True),
    (r"\boxed{9\ 500}", "9500", True),
    (r"\boxed{9~500}", "9500", True),
    (r"\boxed{18~\mathrm{km/h}}", "18", True),
    (r"\boxed{100\pi}", "100", False),
    (r"The area is $25\pi$.", "78.540", True),
    ("√16", "4", True),
]
VALUES: list[tuple[str, str, bool | None]] = [
    ("The answer is 1/2.", "0.5", True),
    ("1/3", "2/6", True),
    ("3 1/2", "3.5", True),
    ("2 and 3/4 cups", "2.75", True),
    ("2/3 cup", "2/3", True),
    ("2/3 cup", "3", False),
    ("1/0", "0", False),
    ("½", "0.5", True),
    ("2½ hours", "2.5", True),
    ("1/3", "0.333", True),
    ("0.333", "1/3", True),
    ("1/3", "0.3", False),
    ("0.334", "1/3", False),
    ("1e3", "1000", True),
    ("2.5E-3", "0.0025", True),
    ("3 × 10^8 m/s", "300000000", True),
    ("3 × 10⁸", "300000000", True),
    ("1.5 million", "1500000", True),
    ("$1.5M", "1500000", True),
    ("$5k", "5000", True),
    ("a 5k run", "5", True),
    ("5 m", "5", True),
    ("1.5万", "15000", True),
    ("2 thousand", "2000", True),
    ("1.5 million", "1.5", False),
    ("2 dozen eggs", "2", True),
    ("half, i.e. 50%", "50", True),
    ("50%", "0.5", True),
    ("0.5", "50%", True),
    ("50 percent", "50%", True),
    ("0.5%", "50%", False),
    ("5%", "0.5", False),
    ("18 dollars and 50 cents", "18.5", True),
    ("18 dollars and 5 cents", "18.05", True),
    ("18 dollars and 50 cents", "50", False),
    ("-5 degrees", "-5", True),
    ("The loss is −5.", "-5", True),
    ("The answer is –5.", "-5", True),
    ("−$5", "-5", True),
    ("$-5$", "-5", True),
    ("(-5)", "-5", True),
    ("negative 5 degrees", "-5", True),
    ("x = - 5", "-5", True),
    ("It is 5 - 3 = 2", "2", True),
    ("- 5 apples", "5", True),
    ("- $5 for lunch", "5", True),
    ("5", "-5", False),
    ("-5", "5", False),
    ("from 3-5 hours, so 5", "5", True),
    ("3–5 hours", "-5", False),
    ("at 12:30", "30", True),
    ("at 11:30", "12:30", False),
    ("at 12:30", "12:30", True),
    ("ends at 2024-05-06", "6", True),
    ("on 2024-05-06", "2024-04-06", False),
    ("٥", "5", True),
    ("٣٫٥", "3.5", True),
    ("５", "5", True),
    ("²", "2", None),
    ("12 cm²", "12", True),
    ("12 cm^2", "2", False),
    ("2³", "8", True),
    ("x^2 = 16", "16", True),
    ("The answer is .5", "0.5", True),
    ("18.00", "18", True),
    ("007", "7", True),
    ("He pays 5€.", "5", True),
    ("€5", "5", True),
    ("Rs. 500", "500", True),
    ("USD18", "18", True),
    ("7.5 hours", "7.5", True),
    ("10am", "10", True),
    ("答案是18。", "18", True),
    ("No.", "0", False),
    ("eighteen", "18", False),
    ("18", "no number", None),
    ("3 ½", "3.5", True),
    ("3/4 (or 75%)", "0.75", True),
    ("-1/2", "-0.5", True),
    ("2.5 billion dollars", "2500000000", True),
    ("1.5 × 10^6", "1500000", True),
    ("10⁻³", "0.001", True),
    ("3:1", "2:1", False),
    ("9.81 m/s²", "9.81", True),
    ("0.30000000000000004", "0.3", False),
    ("Ⅻ", "12", None),
    ("∞", "5", False),
    ("", "5", False),
]
PLACES: list[tuple[str, str, bool | None]] = [
    ("**18**", "18", True),
    ("__18__", "18", True),
    ("`18`", "18", True),
    ("She makes $18.", "18", True),
    ("= 5", "5", True),
    ("Answer: 12.", "12", True),
    ("**Answer:** 12\n\nThat is 3 boxes of 4.", "12", True),
    ("Answer: 12\n\nThat is 3 boxes of 4.", "4", False),
    ("The answer is 18. It is 2 more than 16.", "18", True),
    ("The final answer is: **18** eggs in 3 boxes", "18", True),
    ("The answer is 5 * 3 = 15.", "15", True),
    ("The answer is x = 5.", "5", True),
    ("The answer is 18, because 16 - 3 + 5 = 18 and 9 + 0 = 9.", "18", True),
    ("The answer is found by adding 3 and 4. That gives 7.", "7", True),
    ("If the answer is 5, the rest is 13. So it is 13.", "13", True),
    ("The answer is 18. Wait, 3 are eaten, so it is 15.", "15", True),
    ("The answer is 72, in total.", "72", True),
    ("12 (twelve)", "12", True),
    ("It takes 10 minutes (see step 2).", "10", True),
    ("It takes 10 minutes (see step 2).", "2", False),
    ("It takes 10 minutes. (See step 2.)", "10", True),
    ("He sold 12 (not 10).", "12", True),
    ("She makes eighteen dollars ($18).", "18", True),
    ("She has 3 hens. So it is (18).", "18", True),
    ("It is 18 [1].", "18", True),
    ("She has 18 on the 3rd day.", "18", True),
    ("the 3rd", "3", True),
    ("18 kg of CO2", "18", True),
    ("#### 18\n\nStep 2 was the hard one.", "18", True),
    ("#### 2. Compute the total\nIt is 18.", "18", True),
    ("7 of 12", "7", False),
    ("It is <<3*4=12>>12.", "12", True),
    ("x=5", "5", True),
    ("Total:5", "5", True),
    ("### Answer\n\n42\n", "42", True),
    ("The answer is:\n\\[\n42\n\\]", "42", True),
    ("The answer is therefore 42, not 41.", "42", True),
    ("The answer is not 41 but 42.", "42", True),
    ("The answer is $42 each for 3 people.", "42", True),
    ("The answer is 29 no, 3.", "3", True),
    ("Is the answer 18? No, it is 15.", "15", True),
    ("eighteen-year-old, 18 years", "18", True),
    ("1) 18", "18", True),
]


@pytest.mark.parametrize(("answer", "reference", "right"), GROUPING + LATEX + VALUES + PLACES)
def test_final_numbers(answer: str, reference: str, right: bool | None) -> None:
    assert number("the question", answer, reference) is right


def test_the_place_in_an_answer_and_the_spelling_do_not_depend_on_each_other() -> None:
    for answer, reference, right in VALUES:
        if right and not answer.endswith("²"):
            assert number("q", f"There were 3 of them.\n\n**{answer}**", reference) is True, answer


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("1,234.50", "1234.5"), ("2/4", "0.5"), ("2/6", "1/3"), ("-1/3", "-1/3"), ("0.001", "0.001"), ("-0.5", "-0.5"),
        ("1e3", "1000"), ("50%", "50%"), ("at 12:05", "12:5"), (r"\boxed{\sqrt{2}}", "1.41421356237"), ("none", None),
    ],
)  # fmt: skip
def test_results_have_one_spelling_that_reads_as_itself(answer: str, text: str | None) -> None:
    assert last_number(answer) == text
    assert text is None or last_number(text) == text


def test_labels_and_thresholds_compare_as_the_checker_does() -> None:
    assert same_result(last_number, last_number("50%"), last_number("1/2"))
    assert same_result(last_number, last_number("9 500"), last_number("9,500"))
    assert not same_result(last_number, last_number("50%"), last_number("0.5%"))
    assert not same_result(last_number, "5", None)
    assert not same_result(result_function("text"), "5", "5.0")
    item = Item("1", ("q",), "#### 0.5")
    assert [Prompts("number").check(item, text) for text in ("50%", r"\frac{1}{2}", "0,5", "5", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


HOSTILE = {
    "power tower": "9^9^9^9",
    "boxed power tower": r"\boxed{9^{9^{9^9}}}",
    "boxed huge power": r"\boxed{(9^{99})^{99}}",
    "root of a huge power": r"\boxed{\sqrt{9^{99^{99}}}}",
    "exponent": "1e999999999",
    "power of ten": "3 × 10^999999999",
    "digits": "9" * 10_000_000,
    "groups": "1,234" + ",567" * 200_000 + ",8",
    "dots": "1.234" * 100_000,
    "spaces": "1 234 567 " * 100_000,
    "fractions": "1/2/" * 100_000,
    "boxes": r"\boxed{" * 100_000,
    "nested fractions": r"\frac{1}{" * 50_000 + "2" + "}" * 50_000,
    "nested roots": rf"\boxed{{{'√(' * 20}2{')' * 20}}}",
    "nested brackets": rf"\boxed{{\sqrt{{{'(' * 30}1{')' * 30}}}}}",
    "brackets": "(1" * 100_000,
    "closed brackets": "(1" * 50_000 + ")" * 50_000,
    "bars": rf"\boxed{{\sqrt{{{'|' * 30}1{'|' * 30}}}}}",
    "answers": "the answer is " * 50_000,
    "answers with numbers": "if the answer is 5 " * 50_000,
    "hashes": "#### " * 100_000,
    "minuses": "-" * 500_000,
    "text": r"\text{" * 100_000,
    "half a surrogate pair": "\ud800 is it",
    "nothing": "",
}


@pytest.mark.slow
def test_no_answer_stops_a_sweep() -> None:
    script = (
        "import json, resource, sys\n"
        "answers = json.load(sys.stdin)\n"
        "from judge_decoding.tasks.checkers import number\n"
        "number('q', r'\\boxed{\\sqrt{2}}', '1')\n"  # what is imported counts for none
        "start = resource.getrusage(resource.RUSAGE_SELF)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (int(start.ru_utime) + 60,) * 2)\n"  # all of them take less than 2
        "wrong = [name for name, answer in answers.items() if number('q', answer, '18') is not False]\n"
        "print(json.dumps([wrong, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start.ru_maxrss]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(HOSTILE), capture_output=True, text=True, check=True
    )
    wrong, kibibytes = json.loads(done.stdout)
    assert wrong == []
    assert kibibytes < 200_000


def test_threads_read_formulas_at_once() -> None:
    formulas = [rf"\boxed{{{i}\sqrt{{{j * j}}}}}" for i in range(2, 6) for j in range(2, 6)]
    right = [Fraction(i * j) for i in range(2, 6) for j in range(2, 6)]
    _evaluated.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(final_number, formulas * 4))
    assert [one.value for one in found if one is not None] == right * 4


@pytest.mark.parametrize(
    "text", [r"\sqrt{x}", "2x + 3", r"\int_0^1 2", r"\sqrt{-1}", r"\frac{1}{0} + 1", "1 + ", r"\sqrt{}", "a + b", "5"]
)
def test_what_is_no_calculation(text: str) -> None:
    assert calculated(text) is None


@given(st.text(st.sampled_from("0123456789.,- '/%$:()[]{}\\^e×√π½²=aA\n€") | st.characters(), max_size=60))
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = final_number(text)
    if found is not None:
        again = final_number(str(found))
        assert again is not None
        assert found.same(again)


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{:,}", "{:_}", "**{}**", "\\boxed{{{}}}", "#### {}", "{}.", "{} eggs"]),
)
def test_whole_numbers_are_read_in_every_spelling(value: int, spelling: str) -> None:
    assert last_number(f"There are 7 hens. So it is {spelling.format(value)}") == str(value)
