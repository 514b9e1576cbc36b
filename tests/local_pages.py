"""A local page served by a thread of this process, for a test that is about the page and not about the command."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from judge_decoding.web.connections import DeadlineProtocol
from judge_decoding.web.guard import HOST
from judge_decoding.web.serving import listen


@dataclass(frozen=True)
class LocalPage:
    """A page that is being served.

    Attributes:
        address: with the token, as a command prints it.
        port: of the address.
        close: ends the server and hangs up on whoever is connected; a second call does nothing.
    """

    address: str
    port: int
    close: Callable[[], None]


@contextmanager
def served(app: ASGIApp, token: str, port: int = 0) -> Iterator[LocalPage]:
    """Serve ``app`` as `serve_app` does, until the block ends."""
    with listen(port) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, http=DeadlineProtocol, lifespan="off", ws="none", log_level="warning", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def close() -> None:
            server.should_exit = server.force_exit = True
            thread.join()

        try:
            yield LocalPage(f"http://{HOST}:{port}/?token={token}", port, close)
        finally:
            close()


def check_self_contained(page: str, headers: Mapping[str, str]) -> None:
    """Check that a page is one file: it runs its own scripts and styles only, and asks nobody but its own server."""
    policy = headers["content-security-policy"]
    nonce = re.search(r"style-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.count(f'nonce="{nonce[1]}"') == page.count("<style") + page.count("<script")
    assert not re.search(r"""(?:src|href)="(?!data:,|/)|https?://|@import|url\(|\son\w+=| style=""", page)
    assert headers["cache-control"] == "no-store"
