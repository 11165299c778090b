"""Load a trained captioner from a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from captioning.checkpoints import (
    local_checkpoint,
    looks_at_regions,
    named_file,
    pick_device,
    read_checkpoint,
    rebuild_model,
)
from captioning.config import plugins_allowed
from captioning.errors import ConfigError
from captioning.features import crop_shares
from captioning.inference.likelihood import ScoredCaption
from captioning.inference.predictor import Predictor
from captioning.models import CaptionModel


def load(
    path: str | Path,
    *,
    device: str = "auto",
    hard_attention: str | None = None,
    crops: float | Sequence[float] | None = None,
    plugins: Sequence[str] = (),
) -> Predictor:
    """Load a captioner from a checkpoint. No code from the file is run.

    Args:
        path: `checkpoints/best.ckpt` of a run, a file that `captioning-export` wrote, the name of a model that comes
            with the package, such as "flickr8k-small", or a model on the Hugging Face Hub, "hf:OWNER/NAME" or
            "hf:OWNER/NAME@REVISION" (see `captioning.checkpoints.find_checkpoint`).
        device: "cpu", "cuda", …; "auto" uses a GPU if there is one.
        hard_attention: what hard attention looks at: "most_likely", "sample" or "expectation"; None: as in the
            training configuration.
        crops: also encode the image's four corners, each of this share of the image's sides, such as 0.75, or of each
            of several shares. Works best for a captioner that was trained with `features.crops`. The attention maps of
            all crops are merged into one map over the image.
        plugins: your own modules, whose parts the checkpoint may name. They are imported, which runs their code.

    Raises:
        CheckpointError: the file is missing, is not a captioner's checkpoint, or its weights do not fit its metadata.
        ConfigError: hard_attention is given for a captioner without hard attention, or is not one of its modes; crops
            are not between 0 and 1, or are given for a captioner that looks at a detector's regions; a plug-in cannot
            be imported; the extra `hub` is not installed.
    """
    shares = crop_shares(crops)
    path, device = local_checkpoint(path), pick_device(device)
    with plugins_allowed(plugins):
        checkpoint = read_checkpoint(path)
        metadata = checkpoint["captioning"]
        if shares and looks_at_regions(metadata):
            raise ConfigError(
                f"crops={crops} needs a model with a grid, but {path} looks at a detector's regions. Remove crops"
            )
        model, encoder_weights = rebuild_model(checkpoint, path, hard_attention=hard_attention)
        with named_file(path):
            captioner = cast(CaptionModel, model.to(device))
            return Predictor(captioner, metadata, encoder_weights=encoder_weights, path=path, crops=shares)


def score_captions(
    checkpoint: str | Path,
    images: Sequence[Any] | Any,
    captions: Sequence[str | Sequence[str]] | str,
    *,
    device: str = "auto",
    batch_size: int = 16,
    plugins: Sequence[str] = (),
) -> list[ScoredCaption | list[ScoredCaption]]:
    """Load a checkpoint and score given captions with it.

    Args:
        checkpoint: as `path` of `load`.
        images: as for `Predictor.score_captions`.
        captions: as for `Predictor.score_captions`.
        device: as for `load`.
        batch_size: images scored together.
        plugins: as for `load`.
    """
    return load(checkpoint, device=device, plugins=plugins).score_captions(images, captions, batch_size=batch_size)
