"""Connections of the annotation server that cannot be held open: one person's browser is all there is to serve."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 5.0
"""Seconds in which a request, its body included, must have arrived. uvicorn itself would wait for ever."""
MOST = 64
"""Connections at the same time; a browser has about six."""


class Impatient(H11Protocol):
    """HTTP that hangs up on a client that does not say what it wants, however slowly it goes on saying it."""

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401  (uvicorn's)
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request is there."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the time run while a request is not whole."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
