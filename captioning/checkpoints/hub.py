"""Fetch exported checkpoints from the Hugging Face Hub into the cache of its library, without running code from there.

Only the two files of one model are fetched. The metadata are compared with their hash in git, which is also the name of
their file in the cache. They state the SHA-256 of the weights (`safetensors_format`).
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from captioning.checkpoints.hub_address import COMMIT, HubAddress, hub_address_of, is_hub_address, read_hub_address
from captioning.checkpoints.safetensors_format import METADATA, WEIGHTS
from captioning.errors import CheckpointError
from captioning.io import need_package

HUB_SECONDS = 10.0  # to wait for the hub before the cache is used
MOST_MODELS = 10  # models that a message lists
LOG_IN = "type hf auth login"


class RepositoryFiles(NamedTuple):
    """The files of a repository at one commit.

    Attributes:
        commit: the commit.
        files: {name: its hash in git, or its SHA-256 for a large file; None: unknown}.
        offline: why the hub could not be asked, so that these are the files in the cache; "" if they are the hub's.
    """

    commit: str
    files: Mapping[str, str | None]
    offline: str = ""


class _Unreachable(Exception):
    """The hub gives no answer; the reason is its text."""


def local_checkpoint(path: str | Path) -> Path:
    """Return the path of a checkpoint on this machine; one on the hub (`hf:…`) is fetched into the cache first.

    Prints on stderr where a fetched checkpoint came from, with its commit.

    Raises:
        CheckpointError: the address is misspelled, has no exported model, cannot be reached and is not in the cache, or
            a file of it is damaged.
        ConfigError: the package huggingface_hub is not installed.
    """
    if not is_hub_address(path):
        return Path(path)
    address = read_hub_address(str(path))
    need_hub(str(address))
    weights, origin = _fetch(address)
    print(f"checkpoint: {hub_address_of(weights)} ({origin})", file=sys.stderr)
    return weights


def need_hub(what: str) -> None:
    """Check that the package huggingface_hub is installed, and silence the log of its requests.

    Raises:
        ConfigError: it is not.
    """
    need_package("huggingface_hub", extra="hub", wanted_by=what)
    for name in ("httpx", "httpx2"):  # commands would print each request, because they log to stdout
        logging.getLogger(name).setLevel(logging.WARNING)


def ask_hub(address: HubAddress) -> Any:
    """Return what the hub says about a repository at a revision: `sha`, `private` and the files, `siblings`."""
    from huggingface_hub import HfApi

    return HfApi().model_info(address.repository, revision=address.revision, files_metadata=True, timeout=HUB_SECONDS)


def stated_hash(sibling: Any) -> str | None:
    """Return the hash that the hub states for a file: the SHA-256 of a large one, otherwise the one in git."""
    return sibling.lfs.sha256 if sibling.lfs else sibling.blob_id


def has_hash(content: bytes, stated: str) -> bool:
    """Return whether a file has a hash: SHA-256 of 64 characters, or git's SHA-1."""
    if len(stated) == 64:
        return hashlib.sha256(content).hexdigest() == stated
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == stated


def models_in(files: Mapping[str, Any]) -> list[str]:
    """Return the exported models among the files of a repository: those with weights and metadata."""
    stems = (name.removesuffix(WEIGHTS) for name in files if name.endswith(WEIGHTS))
    return sorted(stem for stem in stems if stem + METADATA in files)


def describe_failure(error: BaseException) -> str:
    """Return the first line of an error's text, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".:")[:200]


@contextmanager
def refusals(address: HubAddress, *, wanted: str = "read") -> Iterator[None]:
    """Turn the hub's refusals inside this context into errors that say what to type.

    Args:
        address: what was asked for.
        wanted: "read" or "write", what a token must allow.

    Raises:
        CheckpointError: the hub refuses the request.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{address.repository}"
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(f"{address}: its owner must admit you: ask on {page}, then {LOG_IN}") from error
    except RepositoryNotFoundError as error:
        advice = f"check the name; for a private one, {LOG_IN}"
        raise CheckpointError(f"{address}: this repository does not exist, or it is private: {advice}") from error
    except RevisionNotFoundError as error:
        advice = "check what follows @"
        raise CheckpointError(
            f"{address}: the repository has no branch, tag or commit {address.revision!r}: {advice}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            why = "does not know this machine's token" if status == 401 else f"does not let this machine {wanted} it"
            advice = f"{LOG_IN}, with a token that may {wanted} it"
            raise CheckpointError(f"{address}: the hub {why} (status {status}): {advice}") from error
        if 400 <= status < 500 and status not in (408, 429):
            raise CheckpointError(
                f"{address}: the hub refuses this ({describe_failure(error)}): check {page}"
            ) from error
        raise


def _fetch(address: HubAddress) -> tuple[Path, str]:
    """Return the weights in the cache, and a few words on where they came from."""
    from huggingface_hub import try_to_load_from_cache

    stored = _files_in_cache(address)
    fixed = stored is not None and COMMIT.fullmatch(address.revision or "") and address.model in models_in(stored.files)
    found = stored if stored is not None and fixed else _files(address, stored)  # a commit never changes
    model = _choose(address, found)
    if found.offline:
        snapshot = _folder(address) / "snapshots" / found.commit
        metadata, weights = (snapshot / f"{model}{ending}" for ending in (METADATA, WEIGHTS))
        _check_hash(metadata, None)
        return weights, f"from the cache: {found.offline}"
    metadata = _download(address, model + METADATA, address.revision)
    commit = metadata.relative_to(_folder(address) / "snapshots").parts[0]  # may be newer than the list of files
    cached = isinstance(try_to_load_from_cache(address.repository, model + WEIGHTS, revision=commit), str)
    weights = _download(address, model + WEIGHTS, commit)
    _check_hash(metadata, found.files[model + METADATA] if commit == found.commit else None)
    return weights, "from the cache" if cached else f"downloaded, {weights.stat().st_size / 1e6:.2f} MB"


def _files(address: HubAddress, stored: RepositoryFiles | None) -> RepositoryFiles:
    """Ask the hub for the files; without an answer, return those in the cache.

    Raises:
        CheckpointError: the hub refuses, or gives no answer and there are none in the cache.
    """
    try:
        return _files_on_hub(address)
    except _Unreachable as error:
        if stored is not None and models_in(stored.files):
            return stored._replace(offline=str(error))
        raise CheckpointError(
            f"{address} is not in the cache, and the hub cannot be asked ({error}): connect this machine to the "
            "internet and run the command again, or copy the two files of the model to this machine and give their path"
        ) from error


def _files_on_hub(address: HubAddress) -> RepositoryFiles:
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        with refusals(address):
            info = ask_hub(address)
        return RepositoryFiles(str(info.sha), {each.rfilename: stated_hash(each) for each in info.siblings or []})
    except OfflineModeIsEnabled as error:
        raise _Unreachable("HF_HUB_OFFLINE is set") from error
    except (HTTPError, OSError) as error:
        raise _Unreachable(f"no connection to the hub: {describe_failure(error)}") from error
    except (KeyError, TypeError, ValueError) as error:  # a login page of a hotel's network, for example
        raise _Unreachable("the answer is not the hub's") from error


def _folder(address: HubAddress) -> Path:
    from huggingface_hub import constants

    name = f"models--{address.repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE).expanduser().resolve() / name


def _files_in_cache(address: HubAddress) -> RepositoryFiles | None:
    """Return the files of a revision that are in the cache; None without any."""
    folder, commit = _folder(address), address.revision or "main"
    if not COMMIT.fullmatch(commit):
        reference = folder / "refs" / commit
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    snapshot = folder / "snapshots" / commit
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()] if commit else []
    return RepositoryFiles(commit, dict.fromkeys(names)) if names else None


def _choose(address: HubAddress, found: RepositoryFiles) -> str:
    """Return the model that an address means.

    Raises:
        CheckpointError: there is none, or the address does not say which.
    """
    models = models_in(found.files)
    where = "what the cache has of it" if found.offline else "it"
    if not models:
        raise CheckpointError(
            f"{address}: {where} has no files of captioning-export (MODEL{WEIGHTS} and MODEL{METADATA}): give another "
            "address"
        )
    listed = ", ".join(str(address._replace(model=each)) for each in models[:MOST_MODELS])
    if address.model is None and len(models) > 1:
        raise CheckpointError(f"{address} has {len(models)} models: type one of {listed}")
    if address.model not in (None, *models):
        raise CheckpointError(f"{address}: {where} has no model {address.model!r}: type one of {listed}")
    return address.model or models[0]


def _download(address: HubAddress, name: str, revision: str | None) -> Path:
    """Return the path of a file in the cache; download it if it is missing.

    Raises:
        CheckpointError: it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    try:
        with refusals(address):
            return Path(hf_hub_download(address.repository, name, revision=revision))
    except (HTTPError, OSError, EntryNotFoundError) as error:
        cause = (isinstance(error, LocalEntryNotFoundError) and error.__cause__) or error
        advice = "check the network and the space on the disk, then run the command again"
        raise CheckpointError(f"{address}: cannot download {name} ({describe_failure(cause)}): {advice}") from error


def _check_hash(path: Path, stated: str | None) -> None:
    """Compare a file in the cache with the hash that the hub states, or with the one in the cache.

    Raises:
        CheckpointError: the file is damaged.
    """
    linked = os.path.basename(os.readlink(path)) if path.is_symlink() else ""  # without links, the name is no hash
    expected = stated or (linked if len(linked) in (40, 64) else None)
    if expected and not has_hash(path.read_bytes(), expected):
        raise CheckpointError(
            f"{path} is damaged: it has another hash than on the hub. Delete {path.resolve()}, then run the command "
            "again to download it"
        )
