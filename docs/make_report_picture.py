"""Make the picture of docs/report.md: ``python docs/make_report_picture.py``. Needs Chromium, and the extra ``dev``.

The answers are the embedded pair's to held-out problems, beside those of the target alone. ``--page FILE`` and
``--answers FILE`` keep the page and the answers it shows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from judge_decoding.core.samples import Sample, write_samples
from judge_decoding.evaluation.evaluate import evaluate
from judge_decoding.evaluation.trial import Method
from judge_decoding.reference.pair import load_pair
from judge_decoding.report.answers import answers_page
from judge_decoding.rules import Judge
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import CHROMIUM, browsing

PICTURE = Path(__file__).parent / "pictures" / "report.png"
THRESHOLD = 0.95
NAME = "reference"


def answers(problems: int) -> list[Sample]:
    """Answers of the embedded pair, the first ones the test problems of seed 0 give."""
    pair, _ = load_pair()
    assert pair.judge is not None
    task = Arithmetic(count=problems)
    method = Method(pair, Judge(pair.judge, THRESHOLD))
    samples, _ = evaluate(
        method, PromptFormat(task, details=True), read_items(task), target=NAME, draft=NAME, judge=NAME
    )
    return samples


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=12)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--answers", type=Path)
    options = parser.parse_args()
    samples = answers(options.problems)
    if options.answers:
        write_samples(options.answers, samples)
    with tempfile.TemporaryDirectory() as name:
        page = (options.page or Path(name) / "page.html").absolute()
        page.write_text(answers_page("Judge decoding, token by token", samples), encoding="utf-8")
        if CHROMIUM is None:
            sys.exit("No Chromium here; on Debian: apt-get install chromium")
        with browsing(Path(name)) as browser:
            browser.look(1100, 780)
            browser.open(page.as_uri())
            browser.until("document.querySelector('.token')")
            browser.press("j")
            browser.js("document.querySelector('#answer-0').scrollIntoView({block: 'start'})")
            browser.until("!document.querySelector('#tip').hidden")
            browser.picture(PICTURE)


if __name__ == "__main__":
    main()
