"""Rules by name: spellings that read back, mistakes that name the nearest, and rules of installed packages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judge_decoding import (
    AnyOf,
    Exact,
    Fuzzy,
    Judge,
    JudgeDecodingError,
    JudgeHead,
    TopK,
    VerificationRule,
    available_rules,
    parse_rule,
)
from judge_decoding.rules import spelling as module
from judge_decoding.rules.spelling import parameters
from tiny import bigram, random_head

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rules.md"


@pytest.fixture(scope="module")
def judge_head() -> JudgeHead:
    return random_head(bigram(torch.zeros(4, 4)), threshold=0.35)


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("exact", "exact"),
        (" exact ( ) ", "exact"),
        ("top_k(k=4)", "top_k(k=4)"),
        ("top_k(k=+4)", "top_k(k=4)"),
        ("judge", "judge(threshold=0.35)"),
        ("judge(threshold=0.70)|top_k(k=4)", "judge(threshold=0.7) | top_k(k=4)"),
        ("min_probability(p=1)", "min_probability(p=1)"),
        ("min_probability(p=1e-3)", "min_probability(p=0.001)"),
        ("min_probability(p=.1234567890123)", "min_probability(p=0.1234567890123)"),
        ("fuzzy(divergence='tv')", "fuzzy(threshold=0.1, divergence=tv)"),
        ('fuzzy(divergence = "kl", threshold = 2)\n', "fuzzy(threshold=2, divergence=kl)"),
        ("typical(delta=1e9)", "typical(epsilon=0.09, delta=1e+09)"),
        ("cascade(alpha=-1)", "cascade(alpha=-1)"),
        ("top_k(k=2) | exact | top_k(k=2)", "top_k(k=2) | exact | top_k(k=2)"),
    ],
)
def test_a_spelling_is_read_and_written(judge_head: JudgeHead, written: str, spelled: str) -> None:
    rule = parse_rule(written, judge_head)
    assert str(rule) == repr(rule) == spelled
    assert str(parse_rule(spelled, judge_head)) == spelled


def test_values_have_the_types_of_the_constructor() -> None:
    fuzzy, top = parse_rule("fuzzy(threshold=1) | top_k(k=3)").parts
    assert isinstance(fuzzy, Fuzzy)
    assert (type(fuzzy.threshold), fuzzy.divergence) == (float, "js")
    assert isinstance(top, TopK)
    assert type(top.k) is int
    assert isinstance(parse_rule("exact | exact"), AnyOf)
    assert type(parse_rule("exact")) is Exact


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "The rule is empty; give one of exact, block, judge, top_k"),
        (" \n", "The rule is empty"),
        ("topk(k=3)", "There is no rule topk (did you mean top_k?); the rules are exact, block,"),
        ("top-k(k=3)", "There is no rule top-k (did you mean top_k?)"),
        ("Exact", "There is no rule Exact (did you mean exact?)"),
        ("zzzzzz", "There is no rule zzzzzz; the rules are"),
        ("top_k(kk=3)", "The rule top_k has no parameter kk (did you mean k?); it has k."),
        ("kl_judge(tua=3)", "has no parameter tua (did you mean tau?); it has tau and confidence."),
        ("exact(k=3)", "The rule exact has no parameter k; it has none."),
        ("judge(head=1)", "The rule judge has no parameter head; it has threshold."),
        ("top_k", "The rule top_k needs k; give it as in top_k(k=...)."),
        ("top_k(k=4, k=5)", "The rule top_k has k twice; give it once."),
        ("top_k(k=4.0)", "top_k's k is 4.0; it must be a whole number"),
        ("top_k(k=four)", "top_k's k is four; it must be a whole number"),
        ("top_k(k=12345678901)", "top_k's k is 12345678901; it must be a whole number of at most 9 digits."),
        ("top_k(k=0)", "top_k's k is 0; it must be 1 or more."),
        ("lenience(factor='0.5')", "lenience's factor is '0.5'; it must be a number."),
        ("lenience(factor=nan)", "lenience's factor is nan; it must be a number."),
        ("lenience(factor=1e999)", "lenience's factor is inf; it must be above 0 and at most 1."),
        ("fuzzy(divergence=3)", "fuzzy's divergence is 3; it must be a word"),
        ("fuzzy(divergence=hellinger)", "fuzzy's divergence is hellinger; it must be one of kl, js, tv."),
        ("judge(threshold=2)", "The judge's threshold is 2.0; it must be between 0"),
        ("top_k(k=4", "cannot be read: it ends where ',' or ')' should be; write it as in 'judge(threshold=0.7)"),
        ("top_k(4)", "cannot be read: there is '4' where a name or ')' should be"),
        ("top_k(k=4,)", "cannot be read: there is ')' where a name should be"),
        ("top_k k=4", "cannot be read: there is 'k' where '|' or '(' or its end should be"),
        ("| exact", "cannot be read: there is '|' where a name should be"),
        ("exact |", "cannot be read: it ends where a name should be"),
        ("exact end", "cannot be read: there is 'end' where"),
        ("exact & exact", "cannot be read: '&' does not belong there"),
        ("top_k(k=4k)", "cannot be read: '4' does not belong there"),
        ("__import__('os').system('true')", "cannot be read"),
        ("block | exact", "block decides on a draft as a whole; use it without other rules."),
    ],
)
def test_what_is_wrong_is_said(judge_head: JudgeHead, written: str, message: str) -> None:
    with pytest.raises(JudgeDecodingError, match=re.escape(message)) as caught:
        parse_rule(written, judge_head)
    assert "\n" not in str(caught.value)


def test_a_judge_needs_a_head() -> None:
    with pytest.raises(JudgeDecodingError, match="The rule judge needs a judge head and there is none"):
        parse_rule("top_k(k=2) | judge")


VALUES = st.one_of(
    st.sampled_from(["kl", "True", "'a'", "nan", "inf", "1e400", "-0.0", ""]),
    st.integers().map(str),
    st.floats().map(str),
)
WORDS = [*available_rules(), "head", "k", "tau"]


@st.composite
def calls(draw: st.DrawFn) -> str:
    """A rule, mostly with parameters that it has."""
    name = draw(st.sampled_from(WORDS[:-2]))
    known = list(parameters(available_rules()[name])) if name in available_rules() else []
    given = draw(st.dictionaries(st.sampled_from([*known, "k"]), VALUES, max_size=2))
    return f"{name}({', '.join(f'{key}={value}' for key, value in given.items())})"


PIECES = st.lists(st.sampled_from([*WORDS, *"()|,=%", "1", "0.5", "'a'", " "]))


@pytest.mark.slow
@given(st.one_of(st.text(), PIECES.map("".join), st.lists(calls(), min_size=1, max_size=3).map(" | ".join)))
@settings(max_examples=200)
def test_no_text_is_more_than_a_wrong_spelling(judge_head: JudgeHead, text: str) -> None:
    with contextlib.suppress(JudgeDecodingError):
        assert isinstance(parse_rule(text, judge_head), VerificationRule)


@pytest.mark.parametrize(
    "text", ["9" * 100_000 + "x", "exact" * 50_000, "(" * 100_000, " " * 100_000 + "%", "exact|" * 2000]
)
def test_long_texts_are_soon_refused(text: str) -> None:
    with pytest.raises(JudgeDecodingError) as caught:
        parse_rule(text)
    assert len(str(caught.value)) < 1000


NUMBERS = {
    int: st.integers(1, 50),
    float: st.floats(0, 1, exclude_min=True, exclude_max=True),
    str: st.sampled_from(["kl", "js", "tv"]),
}


@pytest.mark.slow
@given(st.data())
@settings(max_examples=200)
def test_every_rule_reads_back(judge_head: JudgeHead, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(available_rules())))
    values = {key: data.draw(NUMBERS[parameter.type]) for key, parameter in parameters(available_rules()[name]).items()}
    rule = available_rules()[name](**({"head": judge_head} if name == "judge" else {}), **values)
    again = parse_rule(str(rule), judge_head)
    assert str(again) == str(rule)
    assert {key: getattr(again, key) for key in values} == values


class Odd(VerificationRule):
    """One parameter of every type."""

    name = "odd"

    def __init__(self, word: str, count: int = 1, sure: bool = False, part: float | None = None) -> None:
        self.word, self.count, self.sure, self.part = word, count, sure, part

    accept = Exact.accept


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("odd(word=kl)", "odd(word=kl, count=1, sure=False)"),
        ("odd(word='a b', sure=True, part=2)", "odd(word='a b', count=1, sure=True, part=2)"),
        ("odd(word='True')", "odd(word='True', count=1, sure=False)"),
        ("odd(word='')", "odd(word='', count=1, sure=False)"),
        ("odd(word='4|5')", "odd(word='4|5', count=1, sure=False)"),
    ],
)
def test_parameters_of_all_types(monkeypatch: pytest.MonkeyPatch, written: str, spelled: str) -> None:
    monkeypatch.setitem(module._BUILT_IN, "odd", Odd)
    assert str(parse_rule(written)) == spelled
    assert str(parse_rule(spelled)) == spelled
    with pytest.raises(JudgeDecodingError, match="odd's sure is 1; it must be True or False"):
        parse_rule("odd(word=a, sure=1)")
    with pytest.raises(JudgeDecodingError, match="odd's count is True; it must be a whole number"):
        parse_rule("odd(word=a, count=True)")


def install(folder: Path, source: str, project: str) -> None:
    """What pip leaves of a package with one module: the module and its metadata."""
    parts = tomllib.loads(project)["project"]
    name, version = parts["name"].replace("-", "_"), parts["version"]
    (folder / f"{name}.py").write_text(source)
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {parts['name']}\nVersion: {version}\n")
    groups = parts["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def example() -> tuple[str, str]:
    """The package that the page on rules shows: its module and its pyproject.toml."""
    page = PAGE.read_text(encoding="utf-8").partition("## A rule of your own")[2]
    source, project = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert source
    assert project
    return source[1], project[1]


COMMANDS = """
import contextlib, io, json, sys
from judge_decoding.cli import main as cli
for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def judge_decoding(folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of commands in a process that finds the package in ``folder``."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_an_installed_package_brings_a_rule(folders: dict[str, Path], tmp_path: Path) -> None:
    """The example of the page on rules, installed, on the command line: listed, spelled, and used."""
    install(tmp_path, *example())
    pair = [str(folders["target"]), "one two", "--draft", str(folders["draft"]), "--no-chat", "--max-new-tokens", "12"]
    used = (
        "exact",
        "acme_margin(margin=0)",
        "acme_margin(margin=100) | exact",
        "acme_margin(margin=-1)",
        "acme_marging",
    )
    listed, exact, strict, loose, wrong, unknown = judge_decoding(
        tmp_path, ["rules", "--json"], *(["generate", *pair, "--plain", "--rule", rule] for rule in used)
    )
    row = {row["name"]: row for row in json.loads(listed[1])}["acme_margin"]
    assert row["parameters"] == {"margin": 1.0}
    assert row["strict"] == {"margin": 0.0}
    assert exact[:2] == strict[:2]
    assert exact[0] == loose[0] == 0
    assert exact[1] != loose[1]
    assert wrong == (2, "", "Error: acme_margin's margin is -1.0; it must be 0 or more.\n")
    assert unknown[0] == 2
    assert "did you mean acme_margin?" in unknown[2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import nonsense_that_is_not_there",
            "The rule bad of the package bad-rules cannot be imported (ModuleNotFoundError:",
        ),
        ("class Bad: pass", "The rule bad of the package bad-rules is not a VerificationRule of that name;"),
        (
            "from judge_decoding import Exact\nclass Bad(Exact):\n    name = 'good'",
            "The rule bad of the package bad-rules is not a VerificationRule of that name;",
        ),
        (
            "from judge_decoding import Exact\nclass Bad(Exact):\n    name = 'bad'\n    def __init__(self, k): pass",
            "The rule bad cannot be spelled: its parameter k is not annotated",
        ),
        (
            "from __future__ import annotations\nfrom judge_decoding import Exact\n"
            "class Bad(Exact):\n    name = 'bad'\n    def __init__(self, k: Missing): pass",
            "The rule bad cannot be spelled: its annotations cannot be read (name 'Missing' is not defined)",
        ),
        (
            "from judge_decoding import Exact\nclass Bad(Exact):\n    name = 'bad'\n"
            "    def __init__(self): raise ValueError('no luck')",
            "The rule bad rejects its parameters: no luck; change them.",
        ),
    ],
)
def test_a_package_whose_rule_is_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, message: str
) -> None:
    install(
        tmp_path,
        source,
        "[project]\nname='bad-rules'\nversion='1'\n[project.entry-points.'judge_decoding.rules']\nbad='bad_rules:Bad'",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad_rules", raising=False)
    assert str(parse_rule("exact")) == "exact"  # the others are not affected
    with pytest.raises(JudgeDecodingError, match=re.escape(message)):
        parse_rule("bad")


def test_a_package_cannot_take_a_name_that_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(
        tmp_path, "raise RuntimeError",
        "[project]\nname='greedy'\nversion='1'\n[project.entry-points.'judge_decoding.rules']\nexact='greedy:Bad'",
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(parse_rule("exact")) is Exact
    assert available_rules()["exact"] is Exact


def test_the_head_reaches_the_rule(judge_head: JudgeHead) -> None:
    rule = parse_rule("judge(threshold=0.2)", judge_head)
    assert isinstance(rule, Judge)
    assert rule.head is judge_head


def test_the_page_explains_every_rule() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in available_rules():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"![{name}](pictures/{name}.svg)" in section, name
        assert "**Guarantees**" in section, name
        assert "**Not**" in section or "**not for**" in section, name
        assert f"[`{name}`](#{name})" in page
        assert (PAGE.parent / "pictures" / f"{name}.svg").stat().st_size < 30_000
