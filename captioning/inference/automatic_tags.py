"""Choose what guides the captions of a command: what the user gives, or what the checkpoint recommends."""

from collections.abc import Callable
from typing import Any

from captioning.checkpoints import looks_at_regions
from captioning.errors import CheckpointError
from captioning.inference.guidance import CLASSIFIER, TagGuide

AUTOMATIC = "auto"


def choose_guide(tags: str | None, make_guide: Callable[[str], TagGuide], predictor: Any) -> TagGuide | None:
    """Return the guide for the setting `tags` of a command; None without tags.

    Args:
        tags: "auto", "classifier", a file, or None. "auto" is what the checkpoint recommends, see `recommended_tags`.
        make_guide: Builds the guide from a source of tags.
        predictor: The captioner.
    """
    source = recommended_tags(predictor) if tags == AUTOMATIC else tags
    return make_guide(source) if source else None


def recommended_tags(predictor: Any) -> str | None:
    """Return the source of tags that a checkpoint recommends in its metadata: "classifier", or None without any.

    A captioner that tags cannot guide, because it writes words in pieces or looks at regions, has none. An ensemble has
    those that all its members recommend.

    Raises:
        CheckpointError: The metadata recommend another source, such as a file.
    """
    members = predictor.members
    for each in members:
        if each.metadata.get("tags") not in (None, CLASSIFIER):
            raise CheckpointError(
                f"{each.path}: its metadata recommend tags={each.metadata['tags']!s:.40}, but only {CLASSIFIER} can be "
                "recommended. Set tags=null"
            )
    pieces = predictor.vocabulary.tokenizer.learned_pieces() is not None
    if pieces or any(looks_at_regions(each.metadata) for each in members):
        return None
    return CLASSIFIER if all(each.metadata.get("tags") for each in members) else None
