"""Models' pages of a hub on this machine: speaks as much of the hub's upload protocol as a push needs.

Small files are part of a commit; large ones are sent before it, each to an address of its own, and those that
are there already are not asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import loopback_server

_LARGE = (".safetensors", ".pt", ".pkl")
Answer = tuple[int, Any]


@dataclass
class Page:
    """One model."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)  # their messages

    @property
    def commit(self) -> str:
        """Return what names the newest commit."""
        return f"{len(self.commits):040d}"


@dataclass
class HubPages:
    """All that the hub has."""

    token: str = "hf_" + "t" * 30
    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by their sha256
    sent: list[str] = field(default_factory=list)  # sha256 of each that was taken
    refused: int = 0  # of the next objects, so many are not taken
    meanwhile: Callable[[Page], None] | None = None  # what somebody else does before the next commit
    validated: int = 0

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Answer:
        """Return status and JSON for a request."""
        if path.startswith("/objects/"):
            return self._take(path.removeprefix("/objects/"), body)
        if token != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user", "orgs": []}
        if path == "/api/validate-yaml":
            self.validated += 1
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {
                "transfer": "basic",
                "objects": [self._object(o) for o in json.loads(body)["objects"]],
            }
        name = "/".join(path.split("/")[3:5])
        if name not in self.pages:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            files = [self._mode(f["path"]) for f in json.loads(body)["files"]]
            return 200, {"files": files}
        if "/commit/" in path:
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        return 200, self._listing(name)

    def _create(self, asked: dict[str, Any]) -> Answer:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            return 403, {"error": f"You don't have the rights to create a model under {name}"}
        if name in self.pages:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.pages[name] = Page(private=asked.get("visibility") == "private")
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] in self.objects:
            return known
        return known | {"actions": {"upload": {"href": f"{self.url}/objects/{asked['oid']}"}}}

    def _take(self, sha256: str, body: bytes) -> Answer:
        if self.refused:
            self.refused -= 1
            return 400, {"error": "cut off"}
        assert hashlib.sha256(body).hexdigest() == sha256
        self.objects[sha256] = body
        self.sent.append(sha256)
        return 200, {}

    def _mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(_LARGE) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> Answer:
        page = self.pages[name]
        if self.meanwhile:
            self.meanwhile(page)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, page.commit):
                return 412, {"error": "A commit has happened since. Please refresh and try again."}
            if line["key"] == "header":
                page.commits.append(value["summary"])
            elif line["key"] == "file":
                page.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                page.files[value["path"]] = self.objects[value["oid"]]
        address = f"{self.url}/{name}/commit/{page.commit}"
        return 200, {"commitUrl": address, "commitOid": page.commit, "success": True}

    def _listing(self, name: str) -> dict[str, Any]:
        page = self.pages[name]
        return {
            "id": name, "sha": page.commit, "private": page.private,
            "siblings": [_sibling(path, data) for path, data in page.files.items()],
        }  # fmt: skip


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    found: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob}
    if path.endswith(_LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return found


@contextmanager
def pages_served(hub: HubPages) -> Iterator[HubPages]:
    """Let a hub be asked at `hub.url` while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def _say(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, token = self.path.partition("?")[0], self.headers.get("Authorization")
            status, found = hub.answer(self.command, path, token, body)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _say

        def log_message(self, *_: object) -> None:
            pass

    with loopback_server(Handler) as hub.url:
        yield hub
