"""Push an exported checkpoint to the Hugging Face Hub in one commit, and check that the hub has its files."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from captioning.checkpoints.hub import ask_hub, describe_failure, has_hash, models_in, need_hub, refusals, stated_hash
from captioning.checkpoints.hub_address import HubAddress, read_hub_address
from captioning.checkpoints.model_card import hub_metadata, make_hub_card
from captioning.checkpoints.safetensors_format import METADATA, WEIGHTS
from captioning.errors import CheckpointError, ConfigError

CARD_ENDING, HUB_CARD = ".md", "README.md"
LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"


class PushTarget(NamedTuple):
    """Where a model is pushed to.

    Attributes:
        address: the repository, with a branch as its revision.
        private: whether a new repository is private, and an existing one must be.
        overwrite: whether files of the repository may be replaced.
    """

    address: HubAddress
    private: bool = False
    overwrite: bool = False


def read_push_target(push: str, *, license_name: str | None, private: bool, overwrite: bool) -> PushTarget:
    """Check the settings of a push, before the checkpoint is read.

    Args:
        push: OWNER/NAME, OWNER/NAME@BRANCH or OWNER/NAME/MODEL@BRANCH.
        license_name: the license of the weights, as the hub calls it.
        private: as for `PushTarget`.
        overwrite: as for `PushTarget`.

    Raises:
        ConfigError: a setting is missing or misspelled, the package huggingface_hub is not installed, or this machine
            is not logged in.
    """
    need_hub(f"push={push}")
    from huggingface_hub import get_token

    try:
        address = read_hub_address(f"hf:{push.removeprefix('hf:')}", forms="push=OWNER/NAME or push=OWNER/NAME@BRANCH")
    except CheckpointError as error:
        raise ConfigError(f"push={push}: {error}") from error
    if not license_name:
        raise ConfigError(
            f"push={push} needs the license of the weights: set license=cc-by-4.0, license=mit, …, or license=other "
            f"and state the terms in the text of card=FILE. All names: {LICENSES}"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license_name):
        raise ConfigError(
            f"license={license_name} is not a name of the hub: choose one of {LICENSES}, such as cc-by-4.0"
        )
    if not get_token():
        raise ConfigError(f"push={push}: this machine is not logged in to the hub. Run: hf auth login")
    return PushTarget(address, private=private, overwrite=overwrite)


def push_export(stem: Path, document: Mapping[str, Any], target: PushTarget) -> str:
    """Push STEM.safetensors, STEM.json, STEM.md, and the hub's card README.md, in one commit.

    Args:
        stem: path of the files without their endings.
        document: content of STEM.json.
        target: where to.

    Returns:
        The address of the model, with the commit.

    Raises:
        ConfigError: the repository is public although `private` is set, or has files that would be replaced.
        CheckpointError: the hub refuses or cannot be reached, or its files have other hashes afterwards.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from captioning import __version__

    api, address = HfApi(), target.address
    model = address.model or stem.name
    hub_metadata(model, document)  # fails before a repository is created
    with _failures(address):
        api.create_repo(address.repository, private=target.private, exist_ok=True)
        if address.revision:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        before = ask_hub(address)
    there = {each.rfilename for each in before.siblings or []}
    _check_repository(target, model, before, there)
    others = [each for each in models_in(dict.fromkeys(there)) if each != model]
    named = address._replace(model=model if others else None)
    contents = {
        **{model + each: stem.with_name(stem.name + each).read_bytes() for each in (WEIGHTS, METADATA, CARD_ENDING)},
        HUB_CARD: make_hub_card(model, document, checkpoint=str(named)).encode(),
    }
    with _failures(address):
        commit = api.create_commit(
            address.repository,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=f"Export {model} with captioning {__version__}",
            revision=address.revision,
            parent_commit=before.sha,
        )
    pushed = address._replace(model=model, revision=commit.oid)
    with _failures(pushed):
        after = ask_hub(pushed)
    hashes = {each.rfilename: stated_hash(each) for each in after.siblings or []}
    wrong = [name for name, content in contents.items() if not has_hash(content, hashes.get(name) or "")]
    if wrong:
        raise CheckpointError(
            f"{pushed}: the hub has other content of {', '.join(wrong)} than was pushed: run the command again with "
            "overwrite=true"
        )
    return str(pushed)


def _check_repository(target: PushTarget, model: str, info: Any, there: set[str]) -> None:
    """Check that a push shows no one what is private, and replaces nothing unless `overwrite` is set."""
    repository = target.address.repository
    if target.private and not info.private:
        raise ConfigError(
            f"private=true, but push={repository} is a public repository: make it private in its settings, or remove "
            "private=true"
        )
    own = [name for name in (model + WEIGHTS, model + METADATA, model + CARD_ENDING) if name in there]
    foreign = [HUB_CARD] if HUB_CARD in there and not models_in(dict.fromkeys(there)) else []
    if (replaced := own + foreign) and not target.overwrite:
        raise ConfigError(
            f"push={repository} already has {', '.join(replaced)}: give another name or branch, or set overwrite=true "
            "(the hub keeps the earlier commit)"
        )


@contextmanager
def _failures(address: HubAddress) -> Iterator[None]:
    """Turn what can go wrong while pushing into errors of one line.

    Raises:
        ConfigError: HF_HUB_OFFLINE is set.
        CheckpointError: the hub refuses or cannot be reached, or the upload fails.
    """
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        with refusals(address, wanted="write"):
            yield
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            f"push={address.repository}: HF_HUB_OFFLINE is set. Remove it from the environment"
        ) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # of the upload's threads, and of a refused card
        reason = describe_failure(error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error)
        details = "; ".join(line.strip(" -") for line in str(error).splitlines()[1:] if line.startswith("-"))
        raise CheckpointError(
            f"cannot push to {address} ({reason}{f': {details:.200}' if details else ''}): check the network and the "
            "settings, then run the command again"
        ) from error
