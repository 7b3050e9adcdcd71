"""A stand-in for the Hugging Face hub on the loopback interface, to which the real clients talk.

    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token("owner"))
        subprocess.run(..., env=hub.env(tmp_path))  # HF_ENDPOINT and HF_HOME are read when the client is imported

It keeps repositories (datasets, models, spaces) in memory: commits, branches, tags, pull requests, LFS objects, private
repositories, typed errors, byte ranges, pages. Uploads go through LFS: the client must run with HF_HUB_DISABLE_XET=1
(``env`` says so; in one's own process it must be set before the client is imported).

People: every name given in ``members`` has a token and may write in the namespaces listed for it; anyone with a token
may open a pull request on a public repository. Without arguments: "owner" may write to owner/... and org/..., "guest"
only to guest/....

What a test may look at or do: ``hub.repos[kind, id]`` (commits, refs, pulls), ``hub.requests``, ``hub.commit``,
``hub.merge``, ``hub.tamper``, ``hub.break_after``, ``hub.stall_after``, ``hub.before`` (a function called before every
request; what it returns is the status that is answered instead).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_SUFFIXES = (".parquet", ".mp4", ".mkv", ".safetensors", ".npz", ".zip", ".gz", ".png")
LFS_FROM_BYTES = 10_000_000
DATE = "2026-01-01T00:00:00.000Z"
SHA = re.compile("[0-9a-f]{40}")
MEMBERS = {"owner": ("owner", "org"), "guest": ("guest",)}


@dataclass(frozen=True)
class File:
    """One file of one commit. ``oid``: git's; ``sha256``: of the bytes, which is the LFS object's name."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        spec = "https://git-lfs.github.com/spec/v1"
        return f"version {spec}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def oid(self) -> str:
        return git_oid(self.pointer if self.lfs else self.data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    description: str
    author: str
    files: Mapping[str, File]


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]
    stop: int | None = None  # send only so many bytes of the body ...
    stall: bool = False  # ... and then keep quiet (True) or hang up


@dataclass
class Pull:
    num: int
    title: str
    description: str
    author: str
    base: str  # the commit it was opened on
    status: str = "open"

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Repo:
    """``refs``: "main", other branches, "tags/NAME" and "refs/pr/N" -> commit sha."""

    kind: str  # dataset, model or space
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[Pull] = field(default_factory=list)

    def at(self, revision: str = "main") -> Commit | None:
        """The commit a branch, tag, pull request or (full) commit sha means."""
        sha = self.refs.get(revision) or self.refs.get(f"tags/{revision}") or revision
        return self.commits.get(sha)

    def file(self, path: str, revision: str = "main") -> bytes:
        commit = self.at(revision)
        assert commit is not None, f"{self.id} has no revision {revision}"
        return commit.files[path].data


class Refused(Exception):
    """An error reply: HTTP status, the hub's X-Error-Code (or none), its words, and what else its JSON holds."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.more = status, code, message, more


class LoopbackHub:
    def __init__(self, members: Mapping[str, Sequence[str]] = MEMBERS, page_size: int = 1000) -> None:
        self.members = {name: tuple(spaces) for name, spaces in members.items()}
        self.page_size = page_size
        self.repos: dict[tuple[str, str], Repo] = {}  # (kind, "org/name")
        self.objects: dict[str, bytes] = {}  # LFS objects by sha256
        self.requests: list[tuple[str, str]] = []  # (method, path with query)
        self.before: Callable[[str, str], int | None] | None = None
        self.lock = threading.RLock()
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.connections: set[socket.socket] = set()
        self._breaks: dict[str, tuple[int, bool]] = {}
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    # -- what a test uses

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nobody answers, on connections that are open neither; safe to call twice."""
        self.go_on.set()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def token(self, name: str) -> str:
        assert name in self.members
        return f"hf_{name}"

    def env(self, home: Path, token: str | None = None, offline: bool = False, **more: str) -> dict[str, str]:
        """Environment of a client process. ``home`` holds its cache; ``token`` is a member's name."""
        names = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "HTTP_PROXY", "http_proxy"))
        }
        quiet = ("TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS", "XET")
        names |= {f"HF_HUB_DISABLE_{word}": "1" for word in quiet}
        names |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        if token is not None:
            names["HF_TOKEN"] = self.token(token)
        if offline:
            names["HF_HUB_OFFLINE"] = "1"
        return names | more

    def create(self, repo_id: str, kind: str = "dataset", private: bool = False) -> Repo:
        with self.lock:
            repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private)
            self._record(repo, "main", {}, "initial commit", "", repo_id.split("/")[0])
            return repo

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | None],
        revision: str = "main",
        kind: str = "dataset",
        title: str = "a commit",
        author: str = "owner",
    ) -> str:
        """Commit directly, without the client (None deletes a file); returns the commit's sha."""
        with self.lock:
            changes = {p: None if d is None else File(d, is_lfs(p, len(d))) for p, d in files.items()}
            return self._record(self.repos[kind, repo_id], revision, changes, title, "", author).sha

    def merge(self, repo_id: str, num: int, kind: str = "dataset") -> str:
        """What a maintainer does on the web: merges a pull request; returns main's new sha."""
        with self.lock:
            repo = self.repos[kind, repo_id]
            pull = repo.pulls[num - 1]
            old, new = repo.commits[pull.base].files, repo.commits[repo.refs[pull.ref]].files
            changes = {p: new.get(p) for p in {*old, *new} if old.get(p) != new.get(p)}
            pull.status = "merged"
            return self._record(repo, "main", changes, f"{pull.title} (#{num})", pull.description, pull.author).sha

    def tamper(self, repo_id: str, path: str, data: bytes, revision: str = "main", kind: str = "dataset") -> None:
        """Serve other bytes under the same commit, as a broken or hostile server would."""
        with self.lock:
            repo = self.repos[kind, repo_id]
            commit = repo.at(revision)
            assert commit is not None
            files = {**commit.files, path: File(data, is_lfs(path, len(data)))}
            repo.commits[commit.sha] = replace(commit, files=files)

    def break_after(self, suffix: str, n_bytes: int) -> None:
        """Drop the connection, once, after ``n_bytes`` of the next download whose path ends with ``suffix``."""
        with self.lock:
            self._breaks[suffix] = (n_bytes, False)

    def stall_after(self, suffix: str, n_bytes: int) -> None:
        """The same, but keep quiet instead of hanging up: ``hub.stalled`` is set then, ``hub.go_on`` ends it. For
        clients that are to be killed at a known point."""
        with self.lock:
            self.stalled.clear()
            self.go_on.clear()
            self._breaks[suffix] = (n_bytes, True)

    # -- what the handler uses

    def take_break(self, path: str) -> tuple[int, bool] | None:
        with self.lock:
            hit = next((suffix for suffix in self._breaks if path.endswith(suffix)), None)
            return None if hit is None else self._breaks.pop(hit)

    def find(self, kind: str, repo_id: str, who: str | None) -> Repo:
        """The repository, if ``who`` may see it; to others a private one does not exist."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and not self.may_write(repo_id, who)):
            # without a token the hub cannot tell "missing" from "private"
            raise Refused(404 if who else 401, "RepoNotFound", "Repository not found")
        return repo

    def may_write(self, repo_id: str, who: str | None) -> bool:
        return who is not None and repo_id.split("/")[0] in self.members[who]

    def _record(
        self, repo: Repo, ref: str, changes: Mapping[str, File | None], title: str, text: str, author: str
    ) -> Commit:
        parent = repo.at(ref)
        files = {**(parent.files if parent else {}), **{p: f for p, f in changes.items() if f is not None}}
        files = {p: f for p, f in sorted(files.items()) if not (p in changes and changes[p] is None)}
        content = [parent.sha if parent else "", title, author, len(repo.commits), {p: f.oid for p, f in files.items()}]
        sha = hashlib.sha1(json.dumps(content).encode(), usedforsecurity=False).hexdigest()
        commit = repo.commits[sha] = Commit(sha, parent.sha if parent else None, title, text, author, files)
        repo.refs[ref] = sha
        for file in files.values():
            if file.lfs:
                self.objects.setdefault(file.sha256, file.data)
        return commit

    def push(
        self, repo: Repo, revision: str, lines: list[dict[str, Any]], who: str | None, pull: bool
    ) -> dict[str, Any]:
        """The body of POST .../commit: one JSON object a line, as the client sends it."""
        if who is None:
            raise Refused(401, "", "Unauthorized")
        base = repo.at(revision)
        if base is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        own = any(p.ref == revision and p.author == who for p in repo.pulls)
        if not (pull or own or self.may_write(repo.id, who)):
            raise Refused(403, "", f"You don't have the rights to push to {repo.id}; open a pull request")
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", base.sha) != base.sha:
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        changes: dict[str, File | None] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refused(400, "", f"LFS object {value['oid']} was never uploaded")
                changes[value["path"]] = File(self.objects[value["oid"]], lfs=True)
            elif line["key"] in ("deletedFile", "deletedFolder"):
                gone = [p for p in base.files if p == value["path"] or p.startswith(value["path"].rstrip("/") + "/")]
                if not gone:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
                changes |= dict.fromkeys(gone)
        for path in changes:
            if path.startswith("/") or ".." in path.split("/"):
                raise Refused(400, "", f"invalid path {path}")
        ref, pull_url = revision, None
        if pull:
            opened = Pull(len(repo.pulls) + 1, header["summary"], header.get("description", ""), who, base.sha)
            repo.pulls.append(opened)
            ref, pull_url = opened.ref, f"{self.web(repo)}/discussions/{opened.num}"
            repo.refs[ref] = base.sha
        elif revision not in repo.refs:
            raise Refused(400, "", f"{revision} is not a branch")
        commit = self._record(repo, ref, changes, header["summary"], header.get("description", ""), who)
        return {
            "success": True,
            "commitUrl": f"{self.web(repo)}/commit/{commit.sha}",
            "commitOid": commit.sha,
            "hookOutput": "",
            **({"pullRequestUrl": pull_url} if pull_url else {}),
        }

    def web(self, repo: Repo) -> str:
        return f"{self.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.id}"


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_FROM_BYTES)


def _entry(path: str, file: File) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(file.data), "oid": file.oid}
    if file.lfs:
        found["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return found


def _tree(files: Mapping[str, File], folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {p: f for p, f in files.items() if p.startswith(prefix)}
    if folder and not inside:
        raise Refused(404, "EntryNotFound", f"{folder} does not exist")
    found: dict[str, dict[str, Any]] = {}
    for path, file in inside.items():
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            if recursive or depth == 1:
                name = prefix + "/".join(parts[:depth])
                found[name] = {"type": "directory", "path": name, "size": 0, "oid": git_oid(name.encode())}
        if recursive or len(parts) == 1:
            found[path] = _entry(path, file)
    return list(found.values())


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        with self.hub.lock:
            self.hub.connections.add(self.connection)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, self.path))
        try:
            status = self.hub.before(self.command, self.path) if self.hub.before else None
            if status is not None:
                raise Refused(status, "", "the test says so")
            with self.hub.lock:
                reply = self._route(url.path, {k: v[-1] for k, v in parse_qs(url.query).items()}, body)
        except Refused as error:
            reply = _refusal(error)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(reply if isinstance(reply, Reply) else _json(reply))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _who(self) -> str | None:
        """The member whose token came along; the hub refuses a token that it does not know, whatever is asked for."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if not token:
            return None
        name = next((name for name in self.hub.members if kind == "Bearer" and self.hub.token(name) == token), None)
        if name is None:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return name

    def _route(self, path: str, query: dict[str, str], body: bytes) -> Any:
        """The reply, or what is to be its JSON. Called under the lock; nothing is sent here."""
        hub, method, who = self.hub, self.command, self._who()
        if path == "/api/whoami-v2":
            if who is None:
                raise Refused(401, "", "Unauthorized")
            orgs = [{"type": "org", "name": space} for space in hub.members[who] if space != who]
            token = {"displayName": who, "role": "write", "createdAt": DATE}
            return {"type": "user", "name": who, "fullname": who, "orgs": orgs, "auth": {"accessToken": token}}
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path in ("/api/repos/create", "/api/repos/delete"):
            return self._manage(json.loads(body), who, create=method == "POST")
        if match := re.fullmatch("/lfs/([0-9a-f]{64})(/verify)?", path):
            return self._lfs_object(match[1], bool(match[2]), body)
        if match := re.fullmatch(r"/(?:(dataset|space)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(hub.find(match[1] or "model", match[2], who), json.loads(body), who)
        if match := re.fullmatch("/(?:(dataset|space)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = hub.find(match[1] or "model", match[2], who)
            return self._resolve(repo, unquote(match[3]), unquote(match[4]))
        if match := re.fullmatch(
            "/api/(dataset|model|space)s/([^/]+/[^/]+)(?:/([a-z-]+)(?:/([^/]+))?(?:/(.*))?)?", path
        ):
            kind, repo_id, verb, revision, rest = match.groups()
            repo = hub.find(kind, repo_id, who)
            return self._api(
                repo, verb or "revision", unquote(revision or "main"), unquote(rest or ""), query, body, who
            )
        raise Refused(404, "", f"the stand-in knows no {method} {path}")

    def _api(
        self, repo: Repo, verb: str, revision: str, rest: str, query: dict[str, str], body: bytes, who: str | None
    ) -> Any:
        hub, method = self.hub, self.command
        if verb == "commit" and method == "POST":
            lines = [json.loads(line) for line in body.splitlines()]
            return hub.push(repo, revision, lines, who, pull=query.get("create_pr") == "1")
        if verb == "discussions" and method == "GET":
            return self._discussions(repo, revision)
        if verb == "refs":
            return self._refs(repo)
        if verb in ("branch", "tag") and method == "POST":
            return self._name(repo, verb, revision, json.loads(body or b"{}"), who)
        commit = repo.at(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "revision":
            return self._info(repo, commit, "blobs" in query)
        if verb == "tree":
            return self._page(
                _tree(commit.files, rest.strip("/"), query.get("recursive", "").lower() in ("1", "true")), query
            )
        if verb == "paths-info":
            asked = parse_qs(body.decode()).get("paths", [])
            folders = {t["path"]: t for t in _tree(commit.files, "", True) if t["type"] == "directory"}
            return [
                _entry(p, commit.files[p]) if p in commit.files else folders[p]
                for p in asked
                if p in {**folders, **commit.files}
            ]
        if verb == "commits":
            return self._page(self._history(repo, commit), query)
        if verb == "preupload":
            return {"files": [self._upload_mode(commit, asked) for asked in json.loads(body)["files"]]}
        raise Refused(404, "", f"the stand-in knows no {method} {verb}")

    def _info(self, repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for path, file in commit.files.items():
            entry = _entry(path, file)
            more = {"size": entry["size"], "blobId": entry["oid"], "lfs": None} if blobs else {}
            if blobs and file.lfs:
                more["lfs"] = {"sha256": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
            siblings.append({"rfilename": path, **more})
        return {
            "_id": repo.id,
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.sha,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "createdAt": DATE,
            "lastModified": DATE,
            "siblings": siblings,
            "cardData": _front_matter(commit.files["README.md"].data.decode()) if "README.md" in commit.files else {},
        }

    def _upload_mode(self, commit: Commit, asked: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if is_lfs(asked["path"], asked["size"]) else "regular"
        there = commit.files.get(asked["path"])
        return {
            "path": asked["path"],
            "uploadMode": mode,
            "shouldIgnore": False,
            "oid": there.etag if there else None,
        }

    def _lfs_batch(self, repo: Repo, asked: dict[str, Any], who: str | None) -> dict[str, Any]:
        if who is None:
            raise Refused(401, "", "Unauthorized")
        objects = []
        for wanted in asked["objects"]:
            found: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
            if wanted["oid"] not in self.hub.objects:
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                found["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    def _lfs_object(self, oid: str, verify: bool, body: bytes) -> dict[str, Any]:
        if verify:
            if oid not in self.hub.objects:
                raise Refused(404, "", f"LFS object {oid} is not there")
        elif hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "", "the bytes are not those of the object's name")
        else:
            self.hub.objects[oid] = body
        return {}

    def _resolve(self, repo: Repo, revision: str, path: str) -> Reply:
        commit = repo.at(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = commit.files.get(path)
        if file is None:
            return _refusal(Refused(404, "EntryNotFound", "Entry not found"), {"X-Repo-Commit": commit.sha})
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{file.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if file.lfs:
            headers |= {"X-Linked-Size": str(len(file.data)), "X-Linked-ETag": f'"{file.etag}"'}
        status, data = 200, file.data
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(match[1]) if match[1] else max(0, len(data) - int(match[2]))
            last = min(int(match[2]), len(data) - 1) if match[1] and match[2] else len(data) - 1
            if first > last:
                return _refusal(Refused(416, "", "out of range"), {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        stop, stall = (self.hub.take_break(path) if self.command == "GET" else None) or (None, False)
        return Reply(status, data, headers, stop, stall)

    def _manage(self, asked: dict[str, Any], who: str | None, create: bool) -> dict[str, Any]:
        if who is None:
            raise Refused(401, "", "Unauthorized")
        repo_id, kind = f"{asked.get('organization') or who}/{asked['name']}", asked.get("type", "model")
        if not self.hub.may_write(repo_id, who):
            raise Refused(403, "", f"You don't have the rights to create a {kind} under the namespace {repo_id}")
        if not create:
            self.hub.find(kind, repo_id, who)
            del self.hub.repos[kind, repo_id]
            return {}
        if (kind, repo_id) in self.hub.repos:
            url = self.hub.web(self.hub.repos[kind, repo_id])
            raise Refused(409, "", f"You already created this {kind} repo", url=url)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = self.hub.create(repo_id, kind, private)
        return {"url": self.hub.web(repo), "name": repo_id, "id": repo_id}

    def _validate(self, text: str) -> Any:
        try:
            front = _front_matter(text)
        except ValueError as error:
            return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return {"errors": [], "warnings": [] if front else [{"message": "empty or missing yaml metadata in repo card"}]}

    def _refs(self, repo: Repo) -> dict[str, Any]:
        named: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for ref, sha in repo.refs.items():
            where = "pullRequests" if ref.startswith("refs/pr/") else "tags" if ref.startswith("tags/") else "branches"
            full = ref if ref.startswith("refs/") else f"refs/{ref}" if where == "tags" else f"refs/heads/{ref}"
            named[where].append({"name": ref.removeprefix("tags/"), "ref": full, "targetCommit": sha})
        return named

    def _name(self, repo: Repo, verb: str, name: str, asked: dict[str, Any], who: str | None) -> dict[str, Any]:
        """Make a branch (its name is in the address) or a tag (there the address says of what)."""
        if not self.hub.may_write(repo.id, who):
            raise Refused(403, "", "You don't have the rights")
        of = asked.get("startingPoint", "main") if verb == "branch" else name
        ref = name if verb == "branch" else f"tags/{asked['tag']}"
        target = repo.at(of)
        if target is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {of}")
        if ref in repo.refs:
            raise Refused(409, "", f"{ref} exists already")
        repo.refs[ref] = target.sha
        return {}

    def _discussions(self, repo: Repo, which: str) -> dict[str, Any]:
        listed = [
            {
                "num": p.num,
                "title": p.title,
                "status": p.status,
                "author": {"name": p.author},
                "createdAt": DATE,
                "isPullRequest": True,
                "repo": {"name": repo.id, "type": repo.kind},
                "events": [],
                "filesWithConflicts": [],
                "changes": {"base": "refs/heads/main"},
            }
            for p in repo.pulls
        ]
        if which == "main":  # no number: the list
            return {"count": len(listed), "start": 0, "discussions": listed}
        found = next((p for p in listed if str(p["num"]) == which), None)
        if found is None:
            raise Refused(404, "", "Discussion not found")
        return found

    def _history(self, repo: Repo, commit: Commit | None) -> list[dict[str, Any]]:
        found = []
        while commit is not None:
            authors = [{"user": commit.author}]
            found.append(
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": commit.description,
                    "date": DATE,
                    "authors": authors,
                }
            )
            commit = repo.commits.get(commit.parent or "")
        return found

    def _page(self, rows: list[Any], query: dict[str, str]) -> Reply:
        """One page, with the address of the next in a Link header."""
        first, last = int(query.get("cursor", 0)), int(query.get("cursor", 0)) + self.hub.page_size
        headers = {}
        if last < len(rows):
            others = "&".join(f"{k}={quote(v)}" for k, v in query.items() if k != "cursor")
            address = f"{self.hub.url}{urlsplit(self.path).path}?{others}&cursor={last}"
            headers["Link"] = f'<{address}>; rel="next"'
        return _json(rows[first:last], 200, headers)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":  # a body after HEAD breaks the connection for the real client
            return
        self.wfile.write(reply.body[: reply.stop])
        if reply.stop is not None and reply.stop < len(reply.body):
            self.close_connection = True
            if reply.stall:
                self.wfile.flush()
                self.hub.stalled.set()
                self.hub.go_on.wait(60)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _refusal(error: Refused, headers: Mapping[str, str] | None = None) -> Reply:
    code = {"X-Error-Code": error.code} if error.code else {}
    headers = {"X-Error-Message": error.message, **code, **(headers or {})}
    return _json({"error": error.message, **error.more}, error.status, headers)


def _front_matter(text: str) -> dict[str, Any]:
    """The YAML head of a card, as the hub checks it; ``ValueError`` if it is none."""
    import yaml

    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    if not match:
        return {}
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML: {error}") from error
    if not isinstance(front, dict):
        raise ValueError("the metadata is not a mapping")
    return front
