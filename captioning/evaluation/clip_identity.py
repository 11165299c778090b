"""Distinguish the CLIP models that have the same name: those of folders, and of a hub whose files change."""

import hashlib
from pathlib import Path

FOLDER, HUB = PREFIXES = ("local-dir:", "hf-hub:")  # of models that may have weights of their own
_CONFIGURATION = "open_clip_config.json"
_SETTINGS = ("*.json", "*.model", "*.txt")  # the configuration, and the tokenizer of some models
_WEIGHTS = ("*.bin", "*.pth", "*.safetensors")  # of which open_clip chooses one
_DIGITS = 12  # of a SHA-256 that are shown


def named_model(model: str, *, own_weights: bool) -> str:
    """Return a model's name, followed by what else decides which model it is.

    For a folder, this is the beginning of the SHA-256 of its files; for a model of a hub, the revision that was
    downloaded.

    Args:
        model: the name as open_clip takes it.
        own_weights: whether the weights in the folder are used.
    """
    prefix = next((each for each in PREFIXES if model.startswith(each)), "")
    place = model.removeprefix(prefix)
    if prefix == FOLDER and (files := _files_of(Path(place), own_weights=own_weights)):
        return f"{model} (SHA-256 {_sha256_of_all(files)[:_DIGITS]})"
    if prefix == HUB and (revision := _revision(place)):
        return f"{model} (revision {revision[:_DIGITS]})"
    return model


def hashed_name(file: Path) -> str:
    """Return a file's name, followed by the beginning of its SHA-256."""
    return f"{file.name} (SHA-256 {_sha256(file)[:_DIGITS]})"


def _files_of(folder: Path, *, own_weights: bool) -> list[Path]:
    patterns = (*_SETTINGS, *_WEIGHTS) if own_weights else _SETTINGS
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _revision(repository: str) -> str | None:
    """Return the commit of the files that were downloaded from a hub; None if there are none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, _CONFIGURATION)
    except HFValidationError:  # it cannot be the name of a repository
        return None
    return Path(found).parent.name if isinstance(found, str) else None  # …/snapshots/COMMIT/open_clip_config.json


def _sha256_of_all(files: list[Path]) -> str:
    listed = "\n".join(f"{path.name} {_sha256(path)}" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
