"""Time and number limits for connections of a local server, which serves one person's browser."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 5.0
"""Seconds within which a whole request, body included, must arrive. uvicorn itself sets no limit."""
MOST = 64
"""The most simultaneous connections; a browser opens about six."""


class DeadlineProtocol(H11Protocol):
    """HTTP that disconnects a client whose request is not complete in time, even if data keeps arriving slowly."""

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        """Handle a new connection."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of a connection."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the timer while a request is incomplete."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
