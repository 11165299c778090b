"""A stand-in for the Hugging Face Hub on this machine: the requests with which its library reads, pushes and downloads.

    with StandIn() as hub:
        hub.add("somebody/soft", {"soft.json": b"…"})
        os.environ |= hub.environment(folder)      # for other processes; `connect` does it for this one

Large files are stored as the hub stores them, under their SHA-256, and downloaded from another address of the server.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors",)  # endings of files that are stored as large ones
WRITE, READ = "hf_stand_in_writes", "hf_stand_in_reads"  # the tokens that the stand-in knows
OWNER = "somebody"  # whose repositories WRITE may create


def git_hash(content: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


class Repository:
    """A model repository: its commits with all their files, and its branches."""

    def __init__(self, *, private: bool = False, gated: bool = False):
        self.private, self.gated = private, gated
        self.commits: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.branches: dict[str, str] = {}
        self.commit({".gitattributes": b"*.safetensors filter=lfs"}, "initial commit", "main")

    def commit(self, files: Mapping[str, bytes], message: str, branch: str) -> str:
        """Add a commit with changed files to a branch, and return its hash."""
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        key = hashlib.sha1(f"{len(self.commits)} {message} {sorted(map(git_hash, content.values()))}".encode())
        self.commits[key.hexdigest()] = content
        self.branches[branch] = key.hexdigest()
        self.messages.append(message)
        return key.hexdigest()

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, or a commit itself."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class StandIn:
    """A running server; a context manager.

    Attributes:
        repositories: {OWNER/NAME: the repository}.
        log: the requests, such as "GET /api/models/somebody/soft", without their queries.
        status: an HTTP status with which every request is refused; 0: none.
        cut: number of downloads that end in the middle.
        changed: what every download becomes; None: unchanged.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[str] = []
        self.status, self.cut, self.stopped = 0, 0, False
        self.changed: Any = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "StandIn":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse all connections from now on, also those that are open."""
        self.stopped = True
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", **settings: bool) -> str:
        """Add files to a repository in one commit, and return it."""
        repository = self.repositories.setdefault(name, Repository(**settings))
        self.large |= {sha256(content): content for file, content in files.items() if file.endswith(LARGE)}
        return repository.commit(files, "add", branch)

    def environment(self, folder: Path, *, token: str = WRITE) -> dict[str, str]:
        """Return the environment of a process that uses this server, with its cache and its token in a folder."""
        paths = {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub"), "HF_TOKEN_PATH": str(folder / "token")}
        switches = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"}
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", **paths, **switches}

    @contextmanager
    def connect(self, folder: Path, *, token: str = WRITE) -> Iterator[pytest.MonkeyPatch]:
        """Use this server in this process, where the library may have been imported already."""
        from huggingface_hub import close_session, constants

        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.environment(folder, token=token).items():
                patch.setenv(key, value)
            values = {"ENDPOINT": self.url, "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": False}
            values |= {"HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}"}
            values |= {"HF_TOKEN_PATH": str(folder / "token"), "HF_HUB_DISABLE_XET": True, "HF_HOME": str(folder)}
            for key, value in values.items():
                patch.setattr(constants, key, value)
            close_session()
            yield patch
        close_session()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path, length = urlsplit(self.path).path, int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self._chunk, b""))
        if self.hub.stopped:
            self.close_connection = True
            return None
        self.hub.log.append(f"{self.command} {unquote(path)}")
        if self.hub.status:
            return self._send(self.hub.status, {"error": "refused"})
        for pattern, answer in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(self, **{key: unquote(value or "") for key, value in found.groupdict().items()})
        return self._send(404, {"error": f"the stand-in has no answer to {self.command} {path}"})

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def _send(self, status: int, content: Any = None, *, sent: bytes | None = None, **headers: str) -> None:
        """Send JSON or bytes; `sent`, if given, is all that is sent of them before the connection ends."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if sent is None else sent)
        if sent is not None:
            self.close_connection = True

    def _repository(self, name: str, *, write: bool = False) -> Repository | None:
        """Return a repository that this request may read or write; None: the answer has been sent."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        repository = self.hub.repositories.get(name)
        if token and token not in (READ, WRITE):
            self._send(401, {"error": "bad"}, X_Error_Message="Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not token):
            self._send(404 if token else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif repository.gated and not token:
            self._send(401, {"error": "gated"}, X_Error_Code="GatedRepo")
        elif write and token != WRITE:
            self._send(403 if token else 401, {"error": "may not write"}, X_Error_Message="may not write")
        else:
            return repository
        return None

    def _commit_of(self, repository: Repository, revision: str) -> str | None:
        commit = repository.find(revision or "main")
        if commit is None:
            self._send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return commit

    def model(self, name: str, revision: str = "") -> None:
        if (repository := self._repository(name)) and (commit := self._commit_of(repository, revision)):
            siblings = []
            for file, content in repository.commits[commit].items():
                facts: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
                if file.endswith(LARGE):  # git has a small file that points to the large one
                    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\n"
                    facts["blobId"] = git_hash(f"{pointer}size {len(content)}\n".encode())
                    facts["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
                siblings.append(facts)
            self._send(200, {"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def file(self, name: str, revision: str, file: str) -> None:
        if (repository := self._repository(name)) and (commit := self._commit_of(repository, revision)):
            content = repository.commits[commit].get(file)
            if content is None:
                self._send(404, {"error": "no entry"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            elif file.endswith(LARGE):
                about = {"X_Linked_Etag": f'"{sha256(content)}"', "X_Linked_Size": str(len(content))}
                place = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/large/{sha256(content)}"
                self._send(302, b"", Location=place, X_Repo_Commit=commit, **about)
            else:
                self._content(content, ETag=f'"{git_hash(content)}"', X_Repo_Commit=commit)

    def large_file(self, key: str) -> None:
        assert "Authorization" not in self.headers  # the token must not leave the hub
        self._content(self.hub.large[key], ETag=f'"{key}"')

    def _content(self, content: bytes, **headers: str) -> None:
        if self.command == "HEAD":
            return self._send(200, content, **headers)
        content = self.hub.changed(content) if self.hub.changed else content
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(206, content[start:], Content_Range=span, **headers)
        if self.hub.cut:
            self.hub.cut -= 1
            return self._send(200, content, sent=content[: len(content) // 2], **headers)
        return self._send(200, content, **headers)

    def create(self) -> None:
        request = json.loads(self.body)
        name = f"{request.get('organization') or OWNER}/{request['name']}"
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token != WRITE or not name.startswith(f"{OWNER}/"):
            self._send(403 if token in (READ, WRITE) else 401, {"error": "may not create"})
        elif name in self.hub.repositories:
            self._send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            private = request.get("private") or request.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private=bool(private))
            self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def branch(self, name: str, branch: str) -> None:
        if repository := self._repository(name, write=True):
            if branch in repository.branches:
                return self._send(409, {"error": "Reference already exists"})
            repository.branches[branch] = repository.branches["main"]
            self._send(200, {})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        fine = re.match(r"---\nlicense: (cc-by-4\.0|mit|other)\n", content)
        errors = [] if fine else [{"message": '"license" must be one of [apache-2.0, mit, …]'}]
        self._send(200 if fine else 400, {"errors": errors, "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if (repository := self._repository(name, write=True)) and (commit := self._commit_of(repository, revision)):
            files = []
            for file in json.loads(self.body)["files"]:
                large, there = file["path"].endswith(LARGE), repository.commits[commit].get(file["path"])
                facts = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                oid = {} if there is None else {"oid": sha256(there) if large else git_hash(there)}
                files.append(facts | oid)
            self._send(200, {"files": files})

    def batch(self, name: str) -> None:
        if self._repository(name, write=True):
            objects = []
            for each in json.loads(self.body)["objects"]:
                actions = {"upload": {"href": f"{self.hub.url}/upload/{each['oid']}"}}
                objects.append(each if each["oid"] in self.hub.large else each | {"actions": actions})
            self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, key: str) -> None:
        fine = sha256(self.body) == key
        if fine:
            self.hub.large[key] = self.body
        self._send(200 if fine else 400, {})

    def commit(self, name: str, revision: str) -> None:
        if repository := self._repository(name, write=True):
            lines = [json.loads(line) for line in self.body.splitlines()]
            header, *operations = [line["value"] for line in lines]
            if header.get("parentCommit") not in (None, repository.find(revision)):
                return self._send(412, {"error": "A commit has happened since"})
            files = {
                each["path"]: base64.b64decode(each["content"]) if "content" in each else self.hub.large[each["oid"]]
                for each in operations
            }
            oid = repository.commit(files, header["summary"], revision)
            self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})


_MODEL = r"/api/models/(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    (rf"GET {_MODEL}", _Handler.model),
    (rf"GET {_MODEL}/revision/(?P<revision>[^/]+)", _Handler.model),
    (r"(?:GET|HEAD) /(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.file),
    (r"(?:GET|HEAD) /large/(?P<key>\w+)", _Handler.large_file),
    (r"POST /api/repos/create", _Handler.create),
    (rf"POST {_MODEL}/branch/(?P<branch>[^/]+)", _Handler.branch),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST {_MODEL}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (r"POST /(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /upload/(?P<key>\w+)", _Handler.upload),
    (rf"POST {_MODEL}/commit/(?P<revision>[^/]+)", _Handler.commit),
]
