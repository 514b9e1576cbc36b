"""A Hub on this machine: repositories to which commits are made, and from which files are read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test"
COMMIT = "a" * 40


@dataclass
class Hub:
    """What is on it, and how it answers.

    Attributes:
        url: its address.
        repos: the files of each branch of each repository, by name.
        private: which repositories are private.
        refusals: status and message for requests whose path matches a pattern.
        commits: the number of commits.
    """

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    commits: int = 0


@contextmanager
def running() -> Iterator[Hub]:
    """Run a Hub for the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), "X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _refused(self) -> bool:
        for pattern, (status, message) in self.hub.refusals.items():
            if re.search(pattern, self.path):
                self._answer(status, {"error": message}, {"X-Error-Message": message})
                return True
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
            return True
        return False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._refused():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            new = name not in self.hub.repos
            if new:
                self.hub.repos[name] = {"main": {}}
                self.hub.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            self._answer(200 if new else 409, {"url": f"{self.hub.url}/{name}", "id": name})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/([^/]+)", self.path):
            getattr(self, f"_{found[2]}")(self.hub.repos[found[1]], found[3], body, found[1])
        else:
            self._answer(404, {"error": self.path})

    def _branch(self, repo: dict[str, dict[str, bytes]], branch: str, _body: bytes, _name: str) -> None:
        status = 409 if branch in repo else 201
        repo.setdefault(branch, dict(repo["main"]))
        self._answer(status, {})

    def _preupload(self, _repo: object, _branch: str, body: bytes, _name: str) -> None:
        files = [one["path"] for one in json.loads(body)["files"]]
        self._answer(200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})

    def _commit(self, repo: dict[str, dict[str, bytes]], branch: str, body: bytes, name: str) -> None:
        files = repo[branch]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.hub.commits += 1
        self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _files(self, name: str, revision: str) -> dict[str, bytes]:
        return self.hub.repos.get(name, {}).get("main" if revision == COMMIT else revision, {})

    def do_GET(self) -> None:
        if self._refused():
            return
        named = re.match(r"/api/models/([^/]+/[^/?]+)", self.path)
        if named and named[1] not in self.hub.repos:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/([^/?]+))?", self.path.partition("?")[0]):
            files = self._files(found[1], found[3] or "main")
            siblings = [{"rfilename": name} for name in files]
            told = {"id": found[1], "sha": COMMIT, "private": self.hub.private[found[1]], "siblings": siblings}
            self._answer(200, told)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)", self.path.partition("?")[0]):
            files = self._files(found[1], found[2])
            self._answer(200, [{"type": "file", "path": p, "size": len(c), "oid": "0"} for p, c in files.items()])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            content = self._files(found[1], found[2]).get(found[3])
            if content is None:
                self._answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            else:
                self._answer(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
        else:
            self._answer(404, {"error": self.path})

    def do_HEAD(self) -> None:
        self.do_GET()
