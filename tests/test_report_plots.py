"""The picture of a sweep, from made-up rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from commands import Run, is_one_sentence
from judge_decoding import JudgeDecodingError
from judge_decoding.core.results import ResultRow, read_results
from judge_decoding.core.samples import write_samples
from judge_decoding.report.plots import _front, pareto_svg
from judge_decoding.visible import shown
from samples import HOSTILE, known

SVG = "{http://www.w3.org/2000/svg}"


def row(
    rule: str = "judge", setting: str = "0.5", accuracy: float = 0.9, speed: float = 4.0, **more: object
) -> ResultRow:
    fields: dict[str, object] = {
        "name": f"{rule} {setting}", "rule": rule, "setting": setting, "num_draft_tokens": 8, "accuracy": accuracy,
        "accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.03, "tokens_per_forward": speed,
        "tokens_per_second": 40 * speed,
    }  # fmt: skip
    return ResultRow.model_validate(fields | more)


ROWS = [
    row("exact", "", 0.9, 2.5, lossless=True),
    row(),
    row(setting="0.9", accuracy=0.88, speed=3),
    row("top_k", "k=2", 0.6),
]


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_every_row_is_a_labelled_point_in_both_panels() -> None:
    svg = pareto_svg(ROWS)
    told = texts(svg)
    for label in ("0.5", "0.9", "k=2"):
        assert told.count(label) == 2
    for rule in ("exact", "judge", "top_k"):
        assert told.count(rule) == 1  # in the legend
    assert {"accuracy", "mean acceptance length", "tokens per second"} <= set(told)
    # Rules differ in shape as well as in colour; lossless points are hollow.
    shapes = dict(re.findall(r'<path id="(m\w+)" d="([^"]*z\s*)"', svg))  # closed ones: no ticks, no ends of intervals
    used = re.findall(r'<use xlink:href="#(m\w+)" [^>]*style="fill: (#\w+)', svg)
    points = {(shapes[name], fill) for name, fill in used if name in shapes}
    assert {fill for _, fill in points} == {"#ffffff", "#d55e00", "#009e73"}
    assert len({shape for shape, _ in points}) == 3


def test_the_picture_is_the_same_again_and_refers_to_nothing_else() -> None:
    svg = pareto_svg(ROWS)
    assert svg == pareto_svg(ROWS)
    assert svg.startswith("<svg ")
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', svg))
    assert set(re.findall(r"url\((.)", svg)) <= {"#"}
    assert set(re.findall(r'https?://[^"]*', svg)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


@pytest.mark.parametrize("text", [HOSTILE, "--!><script>", "\u0000\u0001 \n", "$\\frac{1}{0}$", "\u202e"])
def test_names_are_text(text: str) -> None:
    svg = pareto_svg([row(text, text)])
    tags = {element.tag for element in ET.fromstring(svg).iter()}
    assert tags <= {SVG + name for name in "svg defs style g path use text clipPath rect".split()}
    assert "<script" not in svg
    assert sum(told.startswith(shown(text[:10].strip())) for told in texts(svg)) == 3


@pytest.mark.slow
def test_the_page_has_the_picture(run: Run, tmp_path: Path) -> None:
    write_samples(tmp_path / "a.jsonl", [known()])
    rows = [json.loads(own.model_dump_json()) | {"more": 1} for own in ROWS]
    (tmp_path / "sweep.json").write_text(json.dumps({"rows": rows, "made": "today"}))
    assert list(read_results(tmp_path / "sweep.json").rows) == ROWS
    args = ("report", tmp_path / "a.jsonl", "-o", tmp_path / "page.html", "--sweep", tmp_path / "sweep.json")
    assert run(*args)[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert pareto_svg(ROWS) in page


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ("", "Invalid JSON"),
        ('{"rows": []}', "rows"),
        ('{"rows": [{}]}', "rows.0.name: Field required"),
        (json.dumps({"rows": [json.loads(row().model_dump_json()) | {"accuracy": 0.99}]}), "outside its interval"),
    ],
)
def test_a_bad_sweep_is_one_sentence(run: Run, tmp_path: Path, content: str, phrase: str) -> None:
    write_samples(tmp_path / "a.jsonl", [known()])
    (tmp_path / "sweep.json").write_text(content)
    args = ("report", tmp_path / "a.jsonl", "-o", tmp_path / "page.html", "--sweep", tmp_path / "sweep.json")
    result = run(*args)
    is_one_sentence(result, "has no results of evaluate or sweep")
    assert phrase in result[2]
    assert not (tmp_path / "page.html").exists()


def test_the_front_is_what_no_other_setting_beats_in_both() -> None:
    points = [(1.0, 0.9), (2.0, 0.95), (3.0, 0.8), (3.0, 0.85), (2.5, 0.8), (0.5, 0.95)]
    assert _front(points) == [(2.0, 0.95), (3.0, 0.85)]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(JudgeDecodingError, match="needs matplotlib"):
        pareto_svg(ROWS)


def test_a_page_without_a_sweep_needs_no_matplotlib(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.jsonl", [known()])
    code = "import sys; from judge_decoding.cli.main import main; sys.argv[0] = 'judge-decoding'; main()"
    blocked = f"import sys; sys.modules['matplotlib'] = None; {code}"
    command = [sys.executable, "-c", blocked, "report", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
