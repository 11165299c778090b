"""Give a captioner with `model/tags=places` its nouns, and the classifier of its encoder."""

from collections.abc import Mapping
from typing import Any

from captioning.errors import ConfigError
from captioning.models import Captioner, TagPlaces
from captioning.tags import all_nouns, classes_of, linear_head_of


def with_nouns(config: Mapping[str, Any], checkpoints: Mapping[str, Mapping | None]) -> dict[str, Any]:
    """Return the settings of a run with the nouns of `model.tags.nouns` filled in, so that checkpoints list them.

    Args:
        config: the settings.
        checkpoints: {setting: the checkpoint that it names, or None}. Its model has an embedding for each noun.

    Raises:
        ConfigError: a checkpoint has other nouns than the settings.
    """
    tags = config["model"].get("tags") or {}
    if "nouns" not in tags:
        return dict(config)
    nouns = tags["nouns"]
    for key, checkpoint in checkpoints.items():
        model = checkpoint["captioning"]["config"]["model"] if checkpoint else {}
        theirs = (model.get("tags") or {}).get("nouns")
        if theirs and nouns is not None and list(nouns) != list(theirs):
            raise ConfigError(f"model.tags.nouns: the checkpoint of {key} has other nouns. Set model.tags.nouns=null")
        nouns = theirs or nouns
    tags = {**tags, "nouns": all_nouns() if nouns is None else list(nouns)}
    return {**config, "model": {**config["model"], "tags": tags}}


def fill_tag_places(captioner: Any, settings: Mapping[str, Any], encoder: Any) -> None:
    """Set the classifier of a captioner with tags; do nothing for any other captioner.

    Args:
        captioner: the captioner.
        settings: the settings of its encoder.
        encoder: its encoder.

    Raises:
        ConfigError: the encoder has no suitable classifier, or a noun is unknown.
    """
    if isinstance(captioner, Captioner) and isinstance(captioner.tags, TagPlaces):
        captioner.tags.fill(*linear_head_of(settings, encoder), classes_of(captioner.tags.nouns))
