"""Endpoints that are not there, and such as misbehave."""

from __future__ import annotations

import json

from bad import Bad

from endpoint import Response, refused, said

COLLECT = "court collect {questions} -o {new} -m openai:m --retries 0"
LLM = "court label llm {cases} -o {new} -m openai:m --retries 0 --yes"
EQUIVALENCE = "court label equivalence {questions} -o {new} --target {target} --draft {draft} --endpoint m --yes"
KEY = {"OPENAI_API_KEY": "x"}
NOWHERE = KEY | {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}

ENDPOINTS = [
    *(Bad("no key", command, "OPENAI_API_KEY") for command in (COLLECT, LLM, EQUIVALENCE)),
    *(
        Bad(f"address {address!r}", COLLECT, "OPENAI_BASE_URL", environment=KEY | {"OPENAI_BASE_URL": address})
        for address in (
            "nonsense", "http://", "http://127.0.0.1:1/v1", "ftp://127.0.0.1/v1", "http://127.0.0.1:99999/v1",
            "http://[::bad/v1", "file:///etc/passwd", "http://127.0.0.1:port/v1", "http://\u2028/v1",
        )
    ),
    *(
        Bad("no server", command, "Cannot reach", environment=NOWHERE, notes=True)
        for command in (COLLECT, LLM, EQUIVALENCE)
    ),
    *(
        Bad(f"key {key!r}", COLLECT, "OPENAI_API_KEY", environment=NOWHERE | {"OPENAI_API_KEY": key})
        for key in ("schlüssel", "a\nb", "\u2028", "a\x1b[31mb")
    ),
    Bad("no name of a model", "court collect {questions} -o {new} -m openai:", "no name", environment=KEY),
    Bad("no name of a model", "court label llm {cases} -o {new} -m openai: --yes", "no name", environment=KEY),
]  # fmt: skip

PLAIN = [
    (name, Response(raw=content))
    for name, content in {
        "nothing": b"",
        "a page of the web": b"<!DOCTYPE html><html></html>",
        "null": b"null",
        "a list": b"[]",
        "no choices": b"{}",
        "an empty list of choices": b'{"choices": []}',
        "choices that are words": b'{"choices": "none"}',
        "choices nested deep": b'{"choices": ' + b"[" * 100_000,
        "a message that is a word": b'{"choices": [{"message": "hello"}]}',
        "half a surrogate pair": b'{"choices": [{"message": {"content": "\\ud800"}}]}',
        "binary": bytes(range(256)),
        "content that is a number": b'{"choices": [{"message": {"content": 5}}]}',
    }.items()
]
MISBEHAVIOUR = [
    *PLAIN,
    *((f"status {status}", refused(status, "no")) for status in (400, 401, 403, 404, 418, 422, 429, 500, 503)),
    ("an error nested deep", Response(500, raw=b"[" * 100_000)),
    ("an error that is a list", Response(400, body=[])),
    ("an error that is a million letters", Response(400, body={"error": {"message": "x" * 10**6}})),
    ("no content", said(None)),
    ("the content filter", said("x", "content_filter")),
    ("a connection that is closed", Response(drop=True)),
    ("a wrong length", Response(raw=json.dumps({"choices": []}).encode(), headers={"Content-Encoding": "gzip"})),
    ("a way to itself", Response(302, headers={"Location": "/v1/chat/completions"})),
    ("a time to wait that is a word", refused(503, "later", Retry_After="soon")),
]
