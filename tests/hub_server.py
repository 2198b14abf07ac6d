"""A small Hub on 127.0.0.1 that the real `huggingface_hub` and `datasets` clients talk to in tests.

It speaks as much of the Hub's HTTP protocol as those clients use for datasets and models: who am I, create, describe
and list a repository, preupload, the git-LFS batch and its PUT, commit, and resolve with ranges. Everything is in
memory. A test can script faults (a status, a connection cut halfway) and look at the requests.
"""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_a_token_of_the_test_server"
USER = "someone"


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit sha -> path -> content, oldest first
    lfs_paths: set[str] = field(default_factory=set)
    damaged: dict[str, bytes] = field(default_factory=dict)  # path -> what is sent instead of its content
    refs: dict[str, str] = field(default_factory=dict)  # other branches than main, by name: the sha of their commit

    def commit(self, files: dict[str, bytes]) -> str:
        content = [(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())]
        sha = hashlib.sha1(json.dumps([list(self.commits), content]).encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def commit_to(self, ref: str, files: dict[str, bytes]) -> None:
        self.refs[ref] = self.commit(files)

    @property
    def head(self) -> str:
        return [sha for sha in self.commits if sha not in self.refs.values()][-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]


@dataclass
class Fault:
    """What to do instead of answering: a status, another body (`body`), cutting the connection halfway through the body
    (`cut`), or telling that the request is there (`requested`) and answering it no sooner than `released`."""

    method: str
    path: str  # a regular expression, searched for in the path
    status: int = 0
    cut: bool = False
    times: int = 1
    after: int = 0  # so many matching requests are answered first
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    body: bytes | None = None
    requested: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class HubServer:
    """The server and its state. `url` is what `HF_ENDPOINT` must be; `requests` lists `"METHOD path"`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.reset()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def reset(self) -> None:
        self.repos: dict[str, Repo] = {}  # "datasets/user/name" or "models/user/name"
        self.users = {TOKEN: USER}
        self.blobs: dict[str, bytes] = {}  # large files by sha256, whether committed or not
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.large_file_bytes = 2000  # larger files go the large-file way, as do all .parquet and .safetensors

    def dataset(self, name: str) -> Repo:
        return self.repos[f"datasets/{name}"]

    def add_dataset(self, name: str, files: dict[str, bytes], **flags: bool) -> Repo:
        repo = self.repos[f"datasets/{name}"] = Repo(**flags)
        repo.commit(files)
        return repo

    def fail(
        self,
        method: str,
        path: str,
        status: int = 0,
        *,
        cut: bool = False,
        times: int = 1,
        after: int = 0,
        hold: bool = False,
        body: bytes | None = None,
        **headers: str,
    ) -> Fault:
        """Of the requests that match, `times` fail with `status`, are answered with `body`, cut halfway or held, after
        the first `after`."""
        self.faults.append(Fault(method, path, status, cut, times, after, headers, hold, body))
        return self.faults[-1]

    def requests_like(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", body: Any = None, **headers: str):
        self.status = status
        self.headers = headers
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message
        self.body = {"error": message or code} if body is None else body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self) -> None:
        self.hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        target = urllib.parse.urlsplit(self.path)
        self.query = urllib.parse.parse_qs(target.query)
        self.hub.requests.append(f"{self.command} {urllib.parse.unquote(target.path)}")
        fault = self._fault(target.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.cut and self.command in ("PUT", "POST"):
            self.rfile.read(length // 2)
            self.connection.close()
            raise ConnectionAbortedError
        self.content = self.rfile.read(length)
        if fault and fault.hold:
            fault.requested.set()
            fault.released.wait(30)
        try:
            if fault and fault.body is not None:
                self._send(fault.body, fault.status or 200, {"Content-Type": "application/json", **fault.headers})
                return
            if fault and fault.status:
                raise _RefusedError(fault.status, message="scripted", **fault.headers)
            for method, pattern, handler in _ROUTES:
                match = re.fullmatch(pattern, target.path)
                if match and (method == self.command or (method == "GET" and self.command == "HEAD")):
                    handler(self, **{key: urllib.parse.unquote(text or "") for key, text in match.groupdict().items()})
                    return
            raise _RefusedError(404, message="the test server does not know this path")
        except _RefusedError as refused:
            self._send(json.dumps(refused.body).encode(), refused.status, refused.headers)

    def _fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, urllib.parse.unquote(path)):
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                self.cut = fault.cut
                return fault
        self.cut = False
        return None

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            raise ConnectionAbortedError
        self.wfile.write(body)

    def _send_json(self, answer: Any) -> None:
        self._send(json.dumps(answer).encode(), headers={"Content-Type": "application/json"})

    # ------------------------------------------------------------------------------------------ who may do what

    def _user(self) -> str | None:
        """Whose token came along; None without one. A wrong one is refused, as the Hub does."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repo(self, kind: str, name: str, *, write: bool = False) -> Repo:
        user = self._user()
        repo = self.hub.repos.get(f"{kind}/{name}")
        owner = name.split("/")[0]
        if repo is None or (repo.private and user != owner):
            raise _RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user != owner:
            raise _RefusedError(403, message="you have no rights to write here")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        revision = repo.refs.get(revision, revision)
        matching = [sha for sha in repo.commits if sha.startswith(revision) and len(revision) >= 7]
        if revision != "main" and not matching:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha = repo.head if revision == "main" else matching[0]
        return sha, repo.commits[sha]

    # ------------------------------------------------------------------------------------------ answers

    def who_am_i(self) -> None:
        user = self._user()
        if user is None:
            raise _RefusedError(401, message="Invalid username or password.")
        self._send_json({"type": "user", "name": user, "orgs": []})

    def create(self) -> None:
        request = json.loads(self.content)
        user = self._user()
        owner = request.get("organization") or user
        if user is None or user != owner:
            raise _RefusedError(403 if user else 401, message="You don't have the rights to create a repo here")
        key = f"{request.get('type', 'model')}s/{owner}/{request['name']}"
        prefix = "" if key.startswith("models/") else "datasets/"
        url = f"{self.hub.url}/{prefix}{owner}/{request['name']}"
        if key in self.hub.repos:
            raise _RefusedError(
                409, message="You already created this repo", body={"url": url, "error": "already created"}
            )
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.hub.repos[key] = Repo(private=private)
        self.hub.repos[key].commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
        self._send_json({"url": url, "name": f"{owner}/{request['name']}"})

    def describe(self, kind: str, name: str, revision: str = "main") -> None:
        repo = self._repo(kind, name)
        sha, files = self._files(repo, revision or "main")
        card = re.match(r"---\n(.*?)\n---\n", files.get("README.md", b"").decode(errors="replace"), re.DOTALL)
        lines = re.findall(r"^(\w+): (\S.*)$", card[1], re.MULTILINE) if card else []
        answer = {"id": name, "sha": sha, "private": repo.private, "gated": repo.gated, "cardData": dict(lines)}
        self._send_json({**answer, "tags": [], "siblings": [{"rfilename": path} for path in files]})

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> None:
        repo = self._repo(kind, name)
        _, files = self._files(repo, revision)
        recursive = self.query.get("recursive", ["False"])[0].lower() == "true"
        below = f"{path}/" if path else ""
        entries: dict[str, dict[str, Any]] = {}
        for file in sorted(files):
            if not file.startswith(below):
                continue
            parts = file[len(below) :].split("/")
            for depth in range(1, len(parts)) if recursive else [1] if len(parts) > 1 else []:
                folder = below + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[file] = self._entry(repo, file, files[file])
        if path and not entries:
            raise _RefusedError(404, "EntryNotFound", f"{path} does not exist")
        self._send_json(list(entries.values()))

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        _, files = self._files(repo, revision)
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.content)["paths"]
        else:
            paths = urllib.parse.parse_qs(self.content.decode())["paths"]
        entries = [self._entry(repo, path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
        self._send_json(entries + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders])

    def _entry(self, repo: Repo, path: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git}
        if path in repo.lfs_paths:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(kind.rstrip("/") or "models", name)
        sha, files = self._files(repo, revision)
        if repo.gated:
            raise _RefusedError(403, "GatedRepo", "Access to this dataset is restricted")
        if path not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        data = files[path]
        entry = self._entry(repo, path, data)
        data = repo.damaged.get(path, data)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(data))}
        byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not byte_range:
            self._send(data, headers=headers)
            return
        start, end = int(byte_range[1]), min(int(byte_range[2] or len(data) - 1), len(data) - 1)
        if start > end:
            raise _RefusedError(416, **{"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self._send(data[start : end + 1], 206, headers)

    def validate_card(self) -> None:
        text = json.loads(self.content)["content"]
        if text.startswith("---\n") and "\n---\n" not in text[4:]:
            message = "the front matter has no end"
            raise _RefusedError(400, message=message, body={"errors": [{"message": message}], "warnings": []})
        self._send_json({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, write=True)
        _, files = self._files(repo, revision)
        answer = []
        for file in json.loads(self.content)["files"]:
            path = file["path"]
            large = path.endswith((".parquet", ".safetensors")) or file["size"] > self.hub.large_file_bytes
            entry = self._entry(repo, path, files[path]) if path in files else None
            oid = entry and entry.get("lfs", entry)["oid"]
            mode = "lfs" if large else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answer})

    def lfs_batch(self, kind: str, name: str) -> None:
        self._repo(kind.rstrip("/") or "models", name, write=True)
        objects = []
        for wanted in json.loads(self.content)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/storage/{wanted['oid']}"}}
            objects.append(entry)
        self._send_json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise _RefusedError(400, message="the checksum differs")
        self.hub.blobs[oid] = self.content
        self._send(b"")

    def commit(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, write=True)
        _, parent = self._files(repo, revision)
        files = dict(parent)
        for line in self.content.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header" and value.get("parentCommit") not in (None, repo.head):
                raise _RefusedError(412, message="A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                repo.lfs_paths.discard(value["path"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise _RefusedError(400, message=f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
                repo.lfs_paths.add(value["path"])
            elif key == "deletedFile":
                if value["path"] not in files:
                    raise _RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")
                del files[value["path"]]
        sha = repo.commit(files)
        self._send_json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>datasets|models)/{_NAME}"
_FILES = rf"/(?P<kind>datasets/)?{_NAME}"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", _Handler.who_am_i),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_card),
    ("GET", _API, _Handler.describe),
    ("GET", rf"{_API}/revision/(?P<revision>[^/]+)", _Handler.describe),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/storage/(?P<oid>\w+)", _Handler.store),
    ("GET", rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
