"""Load a trained captioner, and caption images with it, with attention weights for every word."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captioning.checkpoints import (
    looks_at_regions,
    named_file,
    pick_device,
    read_checkpoint,
    rebuild_encoder,
    rebuild_model,
)
from captioning.config import allowed_plugins, build_trusted, plugins_allowed
from captioning.data import Transform, Vocabulary, open_picture, upright
from captioning.decoding import Hypothesis, forced_decoding
from captioning.errors import ConfigError, DataError
from captioning.features import Regions, corner_crops, crop_shares
from captioning.inference.attention_map import merge_crops
from captioning.inference.caption import Caption
from captioning.inference.generation import generate, get_search, with_generator
from captioning.inference.likelihood import ScoredCaption, score_texts
from captioning.models import CaptionModel, MultiCrop
from captioning.text import tokenize


class Predictor:
    """Captions pictures with one checkpoint; made by `load`.

    Attributes:
        captioner: takes features (its encoder is the identity). encoder: pictures -> features, built at first use.
        transform: picture -> the encoder's input. views: it, and those of corners where there are any. vocabulary:
        of the training split. metadata: all of the checkpoint's configuration as plain containers.
    """

    def __init__(
        self,
        captioner: CaptionModel,
        metadata: Mapping[str, Any],
        *,
        encoder_weights: dict | None,
        path: Path,
        crops: Sequence[float] = (),
    ):
        self.metadata, self.path = metadata, path
        self.vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"])
        self.transform: Transform = build_trusted(metadata["config"]["transform"])
        self.views = [self.transform, *corner_crops(self.transform, crops)]
        self.captioner = (MultiCrop(captioner, len(self.views)) if crops else captioner).eval()
        self._encoder_weights, self._plugins = encoder_weights, allowed_plugins()

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder that the captioner was trained with.

        Raises:
            CheckpointError: its weights are not those of the training.
        """
        with plugins_allowed(self._plugins):
            encoder = rebuild_encoder(self.metadata, self._encoder_weights, self.path)
        return encoder.to(self.device).eval()

    @property
    def hard_attention(self) -> str | None:
        """What hard attention looks at in decoding; None for other kinds."""
        return self.captioner.hard_attention

    @property
    def attends(self) -> bool:
        """Whether captions come with attention weights."""
        return self.captioner.attends

    @property
    def attention_kind(self) -> str:
        """ "hard", "soft" or "no" attention."""
        return "hard" if self.hard_attention else "soft" if self.attends else "no"

    @property
    def has_sentinel(self) -> bool:
        """Whether a share of each word's weight may go to a visual sentinel."""
        return self.captioner.has_sentinel

    @property
    def device(self) -> torch.device:
        """Where the captioner is."""
        return next(self.captioner.parameters()).device

    @property
    def members(self) -> tuple["Predictor", ...]:
        """The predictors behind this one, more than itself in an ensemble; each has its own encoder and transform."""
        return (self,)

    def caption(
        self, images: Sequence[Any] | Any, method: str | Callable = "beam", *, batch_size: int = 16, **arguments
    ) -> list[Caption]:
        """The best caption of each picture (paths, PIL pictures or [height, width, 3] uint8 arrays).

        Args:
            images: one picture or several.
            method: "greedy", "beam", "diverse_beam", "sample", "consensus", or a function with the signature of
                `beam_search`.
            batch_size: pictures searched together.
            arguments: of the method (see `captioning.decoding`): beam_size=3, max_length=20 …; words in them are
                strings of the vocabulary.
        """
        return [captions[0] for captions in self.captions(images, method, batch_size=batch_size, **arguments)]

    def captions(
        self, images: Sequence[Any] | Any, method: str | Callable = "beam", *, batch_size: int = 16, **arguments
    ) -> list[list[Caption]]:
        """As `caption`, but all that the method returns of each picture: its `n_best`, or its `samples`."""
        search = with_generator(get_search(method, **arguments))
        captions = []
        for batch in _batches(_listed(images), batch_size):
            captions += self.all_captions([_picture(image) for image in batch], search)
        return captions

    def caption_pictures(self, pictures: Sequence[Image.Image], search: Callable) -> list[Caption]:
        """The best caption of each of a batch of opened pictures, by any search with the signature of `beam_search`."""
        return [captions[0] for captions in self.all_captions(pictures, search)]

    @torch.inference_mode()
    def all_captions(
        self, pictures: Sequence[Image.Image], search: Callable, *, names: Sequence[Any] | None = None
    ) -> list[list[Caption]]:
        """As `caption_pictures`, but all that the search returns of each picture; names are for messages."""
        return self._searched(pictures, self.encode(pictures), search, names)

    @torch.inference_mode()
    def caption_by_each(self, picture: Image.Image, searches: Mapping[str, Callable]) -> dict[str, list[Caption]]:
        """All that each of several searches returns of one opened picture, which is encoded once."""
        features = self.encode([picture])
        return {name: self._searched([picture], features, search)[0] for name, search in searches.items()}

    def _searched(
        self, pictures: Sequence[Image.Image], features: Any, search: Callable, names: Sequence[Any] | None = None
    ) -> list[list[Caption]]:
        hypotheses = generate(self.captioner, features, search=search, vocabulary=self.vocabulary, names=names)
        return [
            [self.as_caption(hypothesis, picture.size) for hypothesis in group]
            for group, picture in zip(hypotheses, pictures, strict=True)
        ]

    @torch.inference_mode()
    def caption_regions(self, regions: Sequence[Regions], search: Callable) -> list[list[Caption]]:
        """As `all_captions`, of pictures that a detector's regions stand for (`RegionFolder` reads them)."""
        widths = [len(each.features) for each in regions]
        features = torch.zeros(len(regions), max(widths), regions[0].features.shape[1])
        mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        for row, (each, width) in enumerate(zip(regions, widths, strict=True)):
            features[row, :width], mask[row, :width] = torch.from_numpy(each.features).float(), True
        features, mask = features.to(self.device), mask.to(self.device)
        hypotheses = generate(self.captioner, features, mask, search=search, vocabulary=self.vocabulary)
        made = []
        for group, each, width in zip(hypotheses, regions, widths, strict=True):
            captions = [self.as_caption(hypothesis, None) for hypothesis in group]
            made.append(
                [
                    caption._replace(attention=caption.attention[:, :width], regions=each.boxes)
                    if caption.attention is not None
                    else caption
                    for caption in captions
                ]
            )
        return made

    def forced_captions(
        self, images: Sequence[Any] | Any, texts: Sequence[str] | str, *, batch_size: int = 16
    ) -> list[Caption]:
        """Where the captioner looks as it is led along given captions, one a picture: what it would have looked at
        had it written them. Unknown words are <unk>.

        Args:
            images: pictures, as in `caption`. texts: as many, tokenized as the training captions were.
        """
        images, texts = _listed(images), [texts] if isinstance(texts, str) else list(texts)
        if len(images) != len(texts):
            raise DataError(f"{len(images)} pictures need as many captions to follow, not {len(texts)}")
        captions = []
        for batch in _batches(list(zip(images, texts, strict=True)), batch_size):
            words = [tokenize(text) for _, text in batch]
            tokens = [self.vocabulary.encode(line, max_length=len(line))[1:] for line in words]
            captions += self.caption_pictures(
                [_picture(image) for image, _ in batch], partial(forced_decoding, tokens=tokens)
            )
        return captions

    def figure(
        self,
        image: Any,
        kind: str = "grid",
        method: str | Callable = "beam",
        *,
        path: str | Path | None = None,
        **arguments,
    ):
        """Captions one picture and draws where each word looked; written to `path` where one is given.

        Args:
            image: as in `caption`. kind: one of `figures.FIGURES`; a moving one needs a path.
            method, arguments: as in `caption`.

        Returns:
            matplotlib's Figure; None for a moving picture.
        """
        from captioning.inference import figures  # here, as captions need no matplotlib

        (caption,) = self.caption(image, method, **arguments)
        if path is not None:
            figures.save_caption_figure(_picture(image), caption, path, kind)
        return None if kind in figures.MOVING else figures.draw_figure(_picture(image), caption, kind)

    @torch.inference_mode()
    def score_captions(
        self, images: Sequence[Any] | Any, captions: Sequence[str | Sequence[str]] | str, *, batch_size: int = 16
    ) -> list[ScoredCaption | list[ScoredCaption]]:
        """How probable given captions are, by the step that decoding uses.

        Args:
            images: pictures, as in `caption`.
            captions: for each picture a text, or a list of texts; tokenized as the training captions were.
            batch_size: pictures scored together.

        Returns:
            For each picture a ScoredCaption, or a list of them where it had a list.
        """
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            images, captions = [images], [captions]
        if isinstance(captions, str) or len(images) != len(captions):
            raise DataError(f"{len(images)} pictures need as many captions (each a text or a list of texts) to score")
        scored = []
        for batch in _batches(list(zip(images, captions, strict=True)), batch_size):
            inputs = self.encode([_picture(image) for image, _ in batch])
            groups = [[texts] if isinstance(texts, str) else list(texts) for _, texts in batch]
            results = score_texts(self.captioner, inputs, groups, vocabulary=self.vocabulary)
            scored += [
                made[0] if isinstance(texts, str) else made for made, (_, texts) in zip(results, batch, strict=True)
            ]
        return scored

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What the captioner takes of a batch of opened pictures: [B, …], or of several views [B, V, …]."""
        seen = [
            self.encoder(torch.stack([view(picture) for picture in pictures]).to(self.device)) for view in self.views
        ]
        return seen[0] if len(seen) == 1 else torch.stack(seen, 1)

    def as_caption(self, hypothesis: Hypothesis, size: tuple[int, int] | None) -> Caption:
        """What a search found, in words; size: (width, height) of the picture, None where regions stand for it."""
        words = self.vocabulary.decode(hypothesis.tokens)
        weights, places = (None if part is None else part[: len(words)] for part in hypothesis[3:])
        weights = None if weights is None else weights.float().numpy()
        places = None if places is None else places.numpy()
        box = None if size is None else self.transform.box(*size)
        if len(self.views) > 1 and weights is not None:
            weights, places, box = merge_crops(weights, places, boxes=[view.box(*size) for view in self.views])
        # What a row of weights lacks of 1 is the sentinel's.
        sentinel = (1 - weights.sum(1)).clip(0, 1) if self.has_sentinel and weights is not None else None
        return Caption(" ".join(words), words, hypothesis.log_prob, weights, box, hypothesis.score, places, sentinel)


def load(
    path: str | Path,
    *,
    device: str = "auto",
    hard_attention: str | None = None,
    crops: float | Sequence[float] | None = None,
    plugins: Sequence[str] = (),
) -> Predictor:
    """A captioner from a checkpoint that training wrote, exported or not. Runs no code from the file.

    Args:
        path: checkpoints/best.ckpt of a run, what captioning-export wrote, or the name of a captioner that comes with
            the package; see `checkpoints.find_checkpoint`.
        device: "cpu", "cuda", …; "auto" takes a GPU where there is one.
        hard_attention: what hard attention looks at: "most_likely", "sample" or "expectation"; None: as it was
            trained to.
        crops: also look at the picture's four corners, each of this share of its sides, such as 0.75, or of each of
            several shares; best for a captioner that was trained with `features.crops`. The attention of captions is
            merged on the picture.
        plugins: modules of your own, whose parts the checkpoint may name; they are imported, which runs them.

    Raises:
        CheckpointError: the file is missing, is not such a checkpoint, or its weights do not fit its metadata.
        ConfigError: hard_attention is given for a captioner without it, or is none of its modes; crops are not between
            0 and 1, or are given for a captioner that looks at a detector's regions; a plug-in cannot be imported.
    """
    shares = crop_shares(crops)
    path, device = Path(path), pick_device(device)
    with plugins_allowed(plugins):
        checkpoint = read_checkpoint(path)
        metadata = checkpoint["captioning"]
        if shares and looks_at_regions(metadata):
            raise ConfigError(f"crops={crops} is for a CNN's pictures: {path} looks at a detector's regions")
        captioner, encoder_weights = rebuild_model(checkpoint, path, hard_attention=hard_attention)
        with named_file(path):
            return Predictor(captioner.to(device), metadata, encoder_weights=encoder_weights, path=path, crops=shares)


def score_captions(
    checkpoint: str | Path,
    images: Sequence[Any] | Any,
    captions: Sequence[str | Sequence[str]] | str,
    *,
    device: str = "auto",
    batch_size: int = 16,
    plugins: Sequence[str] = (),
) -> list[ScoredCaption | list[ScoredCaption]]:
    """`Predictor.score_captions` of a checkpoint; device and plugins are those of `load`."""
    return load(checkpoint, device=device, plugins=plugins).score_captions(images, captions, batch_size=batch_size)


def _listed(images: Sequence[Any] | Any) -> list[Any]:
    return [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except Exception as error:  # it may not have been decoded yet, and a decoder raises anything
            raise DataError(f"picture {getattr(image, 'filename', '') or image}: {error}") from error
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert("RGB")
    return open_picture(Path(image))
