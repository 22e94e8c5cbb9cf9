"""A local server that speaks the protocol of the Hugging Face hub, as far as its own client needs it for models: it can
refuse, fail and cut, and says what was asked of it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from local_server import QuietHandler, local_server

#: Whoever has it may read everything and write everything.
TOKEN = "hf_of_the_tests"
#: Of a failure that is a connection that ends without an answer.
CUT = 0
Files = dict[str, bytes]


@dataclass
class Repository:
    """branches: name → commit; commits: commit → its files; gated, private: readable with the token alone."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    gated: bool = False

    def commit(self, files: Files, branch: str = "main", message: str = "") -> str:
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)}".encode() + content).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> Files:
        sha = self.sha(revision)
        assert sha is not None
        return self.commits[sha]


class Answer(Exception):
    """What a request is answered with instead of a content. error: the hub's own code of what is wrong."""

    def __init__(self, code: int, error: str = "", message: str = ""):
        super().__init__(code)
        self.code, self.error, self.message = code, error, message


class HubServer:
    """address: of the hub; storage: of its large files, another host. repositories: by org/name. asked: "METHOD path"
    of every request. failures: part of a path → HTTP codes of the next requests that have it; cuts: part of a path →
    bytes after which the next such bodies are cut. ranges: the Range of every request for a body."""

    def __init__(self) -> None:
        self.address = self.storage = ""
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges: list[str | None] = []
        self.failures: dict[str, list[int]] = {}
        self.cuts: dict[str, list[int]] = {}
        self.lock = Lock()

    def answer(self, request: "Request") -> None:
        try:
            for part, codes in self.failures.items():
                if part in request.path and codes:
                    code = codes.pop(0)
                    if code == CUT:
                        request.close_connection = True
                        return
                    raise Answer(code)
            for pattern, respond in _ROUTES[request.command]:
                match = re.fullmatch(pattern, urlsplit(request.path).path)
                if match is not None:
                    respond(self, request, *map(unquote, match.groups()))
                    return
            raise Answer(404)
        except Answer as answer:
            headers = {"X-Error-Code": answer.error} if request.codes else {}
            request.send_json({"error": answer.message or answer.error}, answer.code, headers)

    def repository(self, request: "Request", name: str) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and not request.has_token):
            raise Answer(404 if request.has_token else 401, "RepoNotFound")
        return found

    def readable(self, request: "Request", name: str, revision: str) -> tuple[Repository, str]:
        found = self.repository(request, name)
        if found.gated and not request.has_token:
            raise Answer(403, "GatedRepo", "ask for access")
        sha = found.sha(revision)
        if sha is None:
            raise Answer(404, "RevisionNotFound")
        return found, sha

    def info(self, request: "Request", name: str, revision: str = "main") -> None:
        found, sha = self.readable(request, name, revision)
        siblings = [{"rfilename": path} for path in sorted(found.commits[sha])]
        content = {"id": name, "sha": sha, "siblings": siblings, "private": found.private, "tags": []}
        request.send_file(json.dumps(content).encode(), {}, cut=self.cut(request))

    def tree(self, request: "Request", name: str, revision: str) -> None:
        found, sha = self.readable(request, name, revision)
        entries = []
        for path, content in sorted(found.commits[sha].items()):
            entry: dict[str, Any] = {"type": "file", "oid": git_oid(content), "size": len(content), "path": path}
            if is_large(path):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        request.send_json(entries)

    def resolve(self, request: "Request", name: str, revision: str, path: str) -> None:
        found, sha = self.readable(request, name, revision)
        content = found.commits[sha].get(path)
        if content is None:
            raise Answer(404, "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git_oid(content)}"'}
        if not is_large(path):
            request.send_file(content, headers, cut=self.cut(request))
            return
        self.objects[sha256(content)] = content
        linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        request.send_json({}, 302, {**headers, **linked, "Location": f"{self.storage}/cdn/{sha256(content)}"})

    def large(self, request: "Request", oid: str) -> None:
        request.send_file(self.objects[oid], {"ETag": f'"{oid}"'}, cut=self.cut(request))

    def cut(self, request: "Request") -> int | None:
        for part, cuts in self.cuts.items():
            if part in request.path and cuts and request.command == "GET":
                return cuts.pop(0)
        return None

    def create(self, request: "Request") -> None:
        request.want_token()
        asked = request.json()
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            raise Answer(409, message="You already created this model repo")
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repositories[name] = Repository(private=is_private)
        self.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        request.send_json({"url": f"{self.address}/{name}", "name": name})

    def branch(self, request: "Request", name: str, branch: str) -> None:
        request.want_token()
        found = self.repository(request, name)
        if branch in found.branches:
            raise Answer(409)
        found.branches[branch] = found.branches[request.json().get("startingPoint", "main")]
        request.send_json({})

    def validate(self, request: "Request") -> None:
        is_front = request.json()["content"].startswith("---\n")
        errors = [] if is_front else [{"message": "no metadata"}]
        request.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, request: "Request", name: str, revision: str) -> None:
        request.want_token()
        found, sha = self.readable(request, name, revision)
        files = []
        for file in request.json()["files"]:
            path = file["path"]
            mode = "lfs" if is_large(path) else "regular"
            content = found.commits[sha].get(path)
            oid = None
            if content is not None:
                oid = sha256(content) if is_large(path) else git_oid(content)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        request.send_json({"files": files})

    def batch(self, request: "Request", name: str) -> None:
        request.want_token()
        objects = []
        for each in request.json()["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.objects:
                entry["actions"] = {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}
            objects.append(entry)
        request.send_json({"transfer": "basic", "objects": objects})

    def upload(self, request: "Request", oid: str) -> None:
        content = request.body()
        if sha256(content) != oid:
            raise Answer(400, message="another content")
        self.objects[oid] = content
        request.send_json({})

    def commit(self, request: "Request", name: str, branch: str) -> None:
        request.want_token()
        found, sha = self.readable(request, name, branch)
        files = dict(found.commits[sha])
        message = ""
        for line in request.body().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                    if value.get("parentCommit", sha) != sha:
                        raise Answer(412, message="A commit has happened since")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        new = found.commit(files, branch, message)
        request.send_json({"commitUrl": f"{self.address}/{name}/commit/{new}", "commitOid": new, "hookOutput": ""})


class Request(QuietHandler):
    """A request, and how it is answered. codes: whether answers say what is wrong by the hub's own codes."""

    protocol_version = "HTTP/1.1"
    hub: HubServer
    codes = True

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def want_token(self) -> None:
        if not self.has_token:
            raise Answer(401, message="Invalid username or password.")

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):  # in chunks
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def json(self) -> Any:
        return json.loads(self.body())

    def send_json(self, content: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_file(json.dumps(content).encode(), headers or {}, code=code)

    def send_file(self, content: bytes, headers: dict[str, str], *, code: int = 200, cut: int | None = None) -> None:
        """cut: the bytes after which the connection ends."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and code == 200:
            start, whole = int(asked[1]), len(content)
            content, code = content[start:], 206
            headers = {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
        self.send_response_only(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        self.close_connection = self.close_connection or cut is not None or code >= 400

    def handle_any(self) -> None:
        with self.hub.lock:
            self.hub.asked.append(f"{self.command} {urlsplit(self.path).path}")
            if self.command == "GET":
                self.hub.ranges.append(self.headers.get("Range"))
            self.hub.answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


_MODEL = r"/api/models/([^/]+/[^/]+)"
_RESOLVE = (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", HubServer.resolve)
_LARGE = (r"/cdn/(\w+)", HubServer.large)
_ROUTES: dict[str, list[tuple[str, Any]]] = {
    "GET": [
        (_MODEL, HubServer.info),
        (rf"{_MODEL}/revision/([^/]+)", HubServer.info),
        (rf"{_MODEL}/tree/([^/]+)", HubServer.tree),
        _RESOLVE,
        _LARGE,
    ],
    "HEAD": [_RESOLVE, _LARGE],
    "POST": [
        (r"/api/repos/create", HubServer.create),
        (r"/api/validate-yaml", HubServer.validate),
        (rf"{_MODEL}/branch/([^/]+)", HubServer.branch),
        (rf"{_MODEL}/preupload/([^/]+)", HubServer.preupload),
        (rf"{_MODEL}/commit/([^/]+)", HubServer.commit),
        (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", HubServer.batch),
    ],
    "PUT": [(r"/lfs/(\w+)", HubServer.upload)],
}


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def hub_serving() -> Iterator[HubServer]:
    hub = HubServer()
    handler = type("Handler", (Request,), {"hub": hub})
    with local_server(handler) as port:
        hub.address, hub.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        yield hub
