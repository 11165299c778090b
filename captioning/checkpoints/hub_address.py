"""Read and write the addresses of models on the Hugging Face Hub: `hf:OWNER/NAME/MODEL@REVISION`."""

import re
from pathlib import Path
from typing import NamedTuple

from captioning.errors import CheckpointError

ADDRESS_FORMS = "hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/MODEL@REVISION"
_MOST_CHARACTERS = 96  # of an owner or a name, as in huggingface_hub.utils.validate_repo_id
COMMIT = re.compile(r"[0-9a-f]{40}")
_LOOKS_LIKE_ONE = re.compile(r"\s*hf\s*:", re.IGNORECASE)
_NAME = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
_ENDING = re.compile(r"\.(?:safetensors|json)$")
# A file in the library's cache; a name on the hub has no "--".
_IN_CACHE = re.compile(r"/models--((?:(?!--)[^/])+)--([^/]+)/snapshots/([0-9a-f]{40})/(.+)\.safetensors$")


class HubAddress(NamedTuple):
    """The address of a model on the hub.

    Attributes:
        repository: OWNER/NAME.
        model: path of its files in the repository, without their endings; None for the only model of the repository.
        revision: branch, tag or commit; None for the main branch.
    """

    repository: str
    model: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        model = f"/{self.model}" if self.model else ""
        return f"hf:{self.repository}{model}" + (f"@{self.revision}" if self.revision else "")


def is_hub_address(path: str | Path) -> bool:
    """Return whether a checkpoint's name begins with `hf:`, also if it is written with spaces or capitals."""
    return bool(_LOOKS_LIKE_ONE.match(str(path)))


def names_repository(text: str) -> bool:
    """Return whether a text is OWNER/NAME, as a repository on the hub may be called."""
    parts = text.split("/")
    return len(parts) == 2 and all(map(_is_name, parts)) and not parts[1].endswith(".git")


def read_hub_address(text: str, *, forms: str = ADDRESS_FORMS) -> HubAddress:
    """Read an address.

    Args:
        text: the address.
        forms: what a user may type, for the error message.

    Raises:
        CheckpointError: a part is missing or has characters that names on the hub cannot have.
    """
    where, at, revision = text.partition(":")[2].partition("@")
    owner, _, below = where.partition("/")
    name, slash, model = below.partition("/")
    fault = ""
    if re.search(r"\s", text):
        fault = "it has a space"
    elif where.startswith("/"):
        fault = "it has a slash after hf:"
    elif not owner or not name:
        fault = "it needs an owner and a name"
    elif wrong := next((part for part in (owner, name) if not _is_name(part)), None):
        fault = f"{wrong!r:.80} cannot be a name on the hub"
    elif name.endswith(".git"):
        fault = f"{name!r:.80} cannot be a name on the hub"
    elif "@" in revision:
        fault = "it has two @"
    elif at and not _is_path(revision):
        fault = "a branch, tag or commit must follow @"
    elif slash and not _is_path(_ENDING.sub("", model)):
        fault = "the name of a model must follow the second slash"
    if fault:
        raise CheckpointError(f"{text!r:.200} is not an address on the Hugging Face Hub ({fault}): type {forms}")
    return HubAddress(f"{owner}/{name}", _ENDING.sub("", model) or None, revision or None)


def hub_address_of(path: str | Path) -> str | None:
    """Return the address, with the commit, of a checkpoint in the cache of the hub; None for any other path."""
    found = _IN_CACHE.search(Path(path).as_posix())
    return str(HubAddress(f"{found[1]}/{found[2]}", found[4], found[3])) if found else None


def _is_name(text: str) -> bool:
    fits = len(text) <= _MOST_CHARACTERS and bool(_NAME.fullmatch(text))
    return fits and "--" not in text and ".." not in text


def _is_path(text: str) -> bool:
    """Return whether a text can be a path in a repository or the name of a branch, and no path outside of a folder."""
    return bool(text) and all(part and part not in (".", "..") for part in text.split("/")) and "\\" not in text
