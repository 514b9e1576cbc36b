"""Make the picture of docs/play.md: ``python docs/make_play_picture.py``. Needs Chromium, and the extra ``dev``.

The speeds in it are those of the machine at that moment: run nothing else beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import CHROMIUM, browsing, end

PICTURE = Path(__file__).parent / "pictures" / "play.png"
QUESTION = "Ann has 6 shells. Tom gives Ann 2 shells. Ann buys 11 shells. How many shells does Ann have now?"


def main() -> None:
    """Write the picture."""
    if CHROMIUM is None:
        sys.exit("No Chromium here; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        command = ("play", "--no-browser", "--port", "0", "--cases", str(Path(name) / "cases.jsonl"))
        server = subprocess.Popen(
            [sys.executable, "-m", "judge_decoding.cli.main", *command], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            with browsing(Path(name)) as browser:
                browser.look(1280, 860)
                browser.open(address)
                browser.until("document.querySelector('#rule option')")
                browser.call("Input.insertText", text=QUESTION)
                browser.press("Enter")
                browser.until("columns.judge.sample && running === null")
                browser.js("document.activeElement.blur()")
                browser.press("j")
                browser.press("w")
                browser.until("columns.whatif.sample && running === null")
                browser.press("j")
                browser.js("scrollTo(0, 200)")
                browser.picture(PICTURE)
                Image.open(PICTURE).convert("RGB").quantize(128).save(PICTURE, optimize=True)
        finally:
            end(server)


if __name__ == "__main__":
    main()
