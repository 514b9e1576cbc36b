"""Start the playground."""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from judge_decoding.web.guard import HOST
from judge_decoding.web.serving import listen

Decoders = Mapping[str, JudgeDecoder | ModelPair]
"""Decoders by the names that the page shows."""


def play(
    decoders: Decoders | Callable[[], Decoders],
    *,
    cases: str | Path | None = None,
    annotator: str = "",
    port: int = 8766,
    browser: bool = True,
    started: Callable[[str], None] = print,
) -> int:
    """Serve the playground on this machine until Ctrl-C: the target alone and judge decoding, side by side.

    Needs the extra ``court``.

    Args:
        decoders: decoders by the names that the page shows; the first is chosen. Or a function that loads them, which
            is called when the file and the port are known to be usable.
        cases: a TokenCourt file to which answers marked on the page are added; None saves none.
        annotator: who marks them.
        port: the port on 127.0.0.1; 0 is any free one.
        browser: open the page.
        started: called with the page's address, which has the token that the page needs.

    Returns:
        How many cases were added.

    Raises:
        JudgeDecodingError: there is no decoder, the file has other things in it than cases or cannot be written, or the
            port is in use.
    """
    if isinstance(decoders, Mapping):
        _some(decoders)
    file = None if cases is None else CaseFile(Path(cases))
    with listen(port) as listener:
        found = decoders if isinstance(decoders, Mapping) else _some(decoders())
        pairs = {name: one if isinstance(one, ModelPair) else _pair(name, one) for name, one in found.items()}
        for pair in pairs.values():
            pair.warm_up()
        token = secrets.token_hex(16)
        address = f"http://{HOST}:{listener.getsockname()[1]}/?token={token}"
        started(address)
        if browser:
            webbrowser.open(address)
        Playground(pairs, file, annotator).serve(listener, token)
    return 0 if file is None else file.count


def _some(decoders: Decoders) -> Decoders:
    if not decoders:
        raise JudgeDecodingError("There are no models to play with; give at least one decoder.")
    return decoders


def _pair(name: str, decoder: JudgeDecoder) -> ModelPair:
    return ModelPair(name, decoder, target=str(decoder.target.config.name_or_path or ""))
