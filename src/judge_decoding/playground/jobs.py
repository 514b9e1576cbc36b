"""Work in threads whose events go to the browser as lines of JSON, and that ends when the browser leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from threading import Event, Lock, Thread
from typing import Any

from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.playground.decoding import EventSink

logger = logging.getLogger(__name__)

JobFunction = Callable[[EventSink, Event], None]
"""Does something in a thread: takes the function for events, and the event that ends the work."""

_LONGEST = 5.0
"""Seconds that the end of the server waits for a round to end."""


class JobRunner:
    """The running jobs; each can be stopped, or all of them.

    Attributes:
        running: the event that ends a job, and its thread, by the job's name.
    """

    def __init__(self) -> None:
        self.running: dict[str, tuple[Event, Thread]] = {}
        self._lock = Lock()
        self._closed = False

    def stop(self, name: str) -> None:
        """Ask a job to end, if it is there."""
        with self._lock:
            if name in self.running:
                self.running[name][0].set()

    def close(self) -> None:
        """Ask all jobs to end, and let no new one begin."""
        self._closed = True
        with self._lock:
            for stop, _ in self.running.values():
                stop.set()

    def join(self) -> None:
        """Wait until the jobs have ended, but not for ever."""
        with self._lock:
            threads = [thread for _, thread in self.running.values()]
        for thread in threads:
            thread.join(_LONGEST)

    async def lines(self, name: str, work: JobFunction) -> AsyncIterator[bytes]:
        """Run ``work`` and yield its events; closing this, as when the client leaves, ends the work."""
        loop, queue, stop = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None](), Event()

        def send(event: dict[str, Any] | None) -> None:
            try:
                loop.call_soon_threadsafe(queue.put_nowait, event)
            except RuntimeError:  # the server has ended
                stop.set()

        thread = Thread(target=self._run, args=(name, work, send, stop), name=f"answer {name}", daemon=True)
        with self._lock:
            self.running[name] = stop, thread
            if self._closed:
                stop.set()
        thread.start()
        try:
            while (event := await queue.get()) is not None:
                yield json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        finally:
            stop.set()

    def _run(self, name: str, work: JobFunction, send: Callable[[dict[str, Any] | None], None], stop: Event) -> None:
        try:
            work(send, stop)
        except JudgeDecodingError as error:
            send({"type": "error", "error": str(error)})
        except Exception as error:  # models and rules of strangers may raise anything
            logger.exception("An answer failed")
            send({"type": "error", "error": f"Decoding failed ({reason(error)}); see the terminal for the details."})
        finally:
            with self._lock:
                self.running.pop(name, None)
            send(None)
