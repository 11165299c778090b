"""Caption images with a trained captioner, with attention weights for every word."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captioning.checkpoints import (
    grid_of,
    looks_at_regions,
    rebuild_encoder,
)
from captioning.config import allowed_plugins, build_trusted, plugins_allowed
from captioning.data import Transform, Vocabulary, open_picture, upright
from captioning.decoding import Hypothesis, forced_decoding
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.features import Regions, corner_crops
from captioning.inference.attention_map import merge_crops, split_tags
from captioning.inference.attribution import ATTENTION, check_maps, names_of_maps, with_maps
from captioning.inference.borrowed_words import ExtendedVocabulary
from captioning.inference.caption import Caption, TagWeights
from captioning.inference.generation import (
    check_length,
    generate,
    get_search,
    most_required,
    with_generator,
    with_guides,
    with_words,
)
from captioning.inference.guidance import TagGuide
from captioning.inference.likelihood import ScoredCaption, score_texts
from captioning.models import CaptionModel, MultiCrop
from captioning.tags import Tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predictor:
    """A trained captioner that captions images; `captioning.inference.load` builds it.

    Attributes:
        captioner: the model, which takes features (its encoder is the identity).
        metadata: the checkpoint's configuration, as plain containers.
        path: the checkpoint.
        vocabulary: the words of the training split, with their tokenizer.
        max_length: the number of words that training captions were cut to, the default limit of every search.
        transform: turns an image into the encoder's input.
        views: the transforms of all views of an image: `transform`, then those of the corner crops.
        guide: what guides the captions, see `guide_by`; None: nothing does.
    """

    guide: TagGuide | None = None
    _extended: ExtendedVocabulary | None = None

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
        self.vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"], metadata.get("tokenizer"))
        self.max_length: int | None = metadata["config"].get("data", {}).get("max_length")
        self.transform: Transform = build_trusted(metadata["config"]["transform"])
        self.views = [self.transform, *corner_crops(self.transform, crops)]
        self.captioner = (MultiCrop(captioner, len(self.views)) if crops else captioner).eval()
        self._encoder_weights, self._plugins = encoder_weights, allowed_plugins()

    def guide_by(self, guide: TagGuide | None) -> "Predictor":
        """Guide all captions by the tags of their images from now on, or no longer; return this predictor.

        Raises:
            ConfigError: the captioner writes words in pieces, or looks at a detector's regions.
        """
        if guide and looks_at_regions(self.metadata):
            raise ConfigError(f"tags={guide.source}: {self.path} looks at a detector's regions. Set tags=null")
        self._extended = guide.extend(self.vocabulary) if guide else None
        self.guide = guide
        return self

    def check_search(self, search: Callable) -> None:
        """Refuse a search whose words or lengths do not fit the captioner, before any image is encoded.

        Args:
            search: any search with the signature of `beam_search`.

        Raises:
            ConfigError: a word is not in the vocabulary, or the captioner cannot read the longest captions.
        """
        vocabulary = self._extended.words if self._extended else self.vocabulary
        check_length(with_words(search, vocabulary, max_length=self.max_length), self.captioner.longest)

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder that the captioner was trained with: images -> features, built at first use.

        Raises:
            CheckpointError: its weights differ from those used in training.
        """
        with plugins_allowed(self._plugins):
            encoder = rebuild_encoder(self.metadata, self._encoder_weights, self.path)
        return encoder.to(self.device).eval()

    @property
    def hard_attention(self) -> str | None:
        """What hard attention looks at in decoding, such as "most_likely"; None for other kinds."""
        return self.captioner.hard_attention

    @property
    def attends(self) -> bool:
        """Whether captions have attention weights."""
        return self.captioner.attends

    @property
    def attention_kind(self) -> str:
        """The kind of attention: "hard", "soft" or "no"."""
        return "hard" if self.hard_attention else "soft" if self.attends else "no"

    @property
    def has_sentinel(self) -> bool:
        """Whether a share of each word's weight may go to a visual sentinel."""
        return self.captioner.has_sentinel

    @property
    def map_names(self) -> tuple[str, ...]:
        """The maps of a word that this captioner has: its attention, summaries, gradient maps, layers and heads.

        docs/maps.md describes them.
        """
        return names_of_maps(self.captioner)

    @property
    def device(self) -> torch.device:
        """The device of the captioner's weights."""
        return next(self.captioner.parameters()).device

    @property
    def members(self) -> tuple["Predictor", ...]:
        """The predictors of an ensemble, each with its own encoder and transform; otherwise this one alone."""
        return (self,)

    def caption(
        self, images: Sequence[Any] | Any, method: str | Callable = "beam", *, batch_size: int = 16, **arguments
    ) -> list[Caption]:
        """Generate the best caption of each image.

        Args:
            images: one image or several: paths, PIL images or [height, width, 3] uint8 arrays.
            method: "greedy", "beam", "diverse_beam", "sample", "consensus", or a function with the signature of
                `beam_search`.
            batch_size: images searched together.
            **arguments: keyword arguments of the method (see `captioning.decoding`), such as beam_size=3 or
                max_length=20; words are strings of the vocabulary.

        Raises:
            ConfigError: the method or one of its arguments is invalid.
            DataError: an image cannot be read.
        """
        return [captions[0] for captions in self.captions(images, method, batch_size=batch_size, **arguments)]

    def captions(
        self, images: Sequence[Any] | Any, method: str | Callable = "beam", *, batch_size: int = 16, **arguments
    ) -> list[list[Caption]]:
        """Generate all captions that the method returns per image: its `n_best` or its `samples`; see `caption`."""
        search = with_generator(get_search(method, **arguments))
        self.check_search(search)
        captions: list[list[Caption]] = []
        for batch in _batches(_listed(images), batch_size):
            names = [_name(image, len(captions) + place) for place, image in enumerate(batch)]
            captions += self.all_captions([_picture(image) for image in batch], search, names=names)
        return captions

    def caption_pictures(self, pictures: Sequence[Image.Image], search: Callable) -> list[Caption]:
        """Generate the best caption of each image of a batch.

        Args:
            pictures: opened images.
            search: any search with the signature of `beam_search`.
        """
        return [captions[0] for captions in self.all_captions(pictures, search)]

    @torch.inference_mode()
    def all_captions(
        self, pictures: Sequence[Image.Image], search: Callable, *, names: Sequence[Any] | None = None
    ) -> list[list[Caption]]:
        """Generate all captions that the search returns per image; see `caption_pictures`.

        Args:
            pictures: opened images.
            search: any search with the signature of `beam_search`.
            names: paths or image ids, for error messages, and for a guide with a file of tags.
        """
        tags = self._tags(pictures, names)
        return self._searched(pictures, self.encode(pictures), search, names=names, tags=tags)

    def search_features(
        self,
        features: Any,
        search: Callable,
        *,
        mask: Any = None,
        names: Sequence[Any] | None = None,
        tags: Sequence[Sequence[Tag]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Generate captions of images that are given as features, guided by their tags if they are given.

        Args:
            features: as the encoder computes them; a tuple with those of each member for an ensemble.
            search: any search with the signature of `beam_search`.
            mask: see `generate`.
            names: paths or image ids, for error messages.
            tags: the tags of each image, for the guide; None: the captions are not guided.

        Returns:
            The hypotheses of each image, best first; `words_of` returns their words.
        """
        options: dict[str, Any] = {"names": names, "max_length": self.max_length}
        if self.guide is None or self._extended is None or tags is None:
            return generate(self.captioner, features, mask, search=search, vocabulary=self.vocabulary, **options)
        room = most_required(search, max_length=self.max_length)
        guided = self.guide.guide(self.captioner, tags, self._extended, device=self.device, most=room)
        search = with_guides(search, guided.guides, no_repeat_ngram=guided.no_repeat_ngram, phrases=guided.phrases)
        return generate(guided.captioner, features, mask, search=search, vocabulary=self._extended.words, **options)

    def words_of(self, hypothesis: Hypothesis) -> list[str]:
        """Return the words of a caption; with the correct articles if this predictor has a guide."""
        if self._extended is None:
            return self.vocabulary.decode(hypothesis.tokens)
        return self._extended.with_articles(self._extended.words.decode(hypothesis.tokens))

    def text_of(self, hypothesis: Hypothesis) -> str:
        """Return the text of a caption."""
        return self.vocabulary.tokenizer.join(self.words_of(hypothesis))

    @torch.inference_mode()
    def caption_by_each(
        self, picture: Image.Image, searches: Mapping[str, Callable], *, guided: bool = True
    ) -> dict[str, list[Caption]]:
        """Generate captions of one opened image with several searches; the image is encoded and tagged once.

        Args:
            picture: the opened image.
            searches: {name: any search with the signature of `beam_search`}.
            guided: whether tags guide the captions, if this predictor has a guide.
        """
        features, tags = self.encode([picture]), self._tags([picture]) if guided else None
        return {name: self._searched([picture], features, search, tags=tags)[0] for name, search in searches.items()}

    def _tags(self, pictures: Sequence[Image.Image], names: Sequence[Any] | None = None) -> list[list[Tag]] | None:
        """Return the tags of each image; None without a guide."""
        if not self.guide:
            return None
        known = names or [_name(picture, place) for place, picture in enumerate(pictures)]
        return [self.guide.tags_of(picture, name) for picture, name in zip(pictures, known, strict=True)]

    def _searched(
        self,
        pictures: Sequence[Image.Image],
        features: Any,
        search: Callable,
        *,
        names: Sequence[Any] | None = None,
        tags: list[list[Tag]] | None,
    ) -> list[list[Caption]]:
        found = self.search_features(features, search, names=names, tags=tags)
        captions = [
            [self.as_caption(hypothesis, picture.size, guided=tags is not None, nouns=nouns) for hypothesis in group]
            for group, picture, nouns in zip(found, pictures, self.captioner.name_tags(features), strict=True)
        ]
        if tags is None:
            return captions
        plain = self._log_probs_of_stand_ins(features, found)
        return [
            [each._replace(tags=tuple(named), stand_in_log_prob=log_prob) for each, log_prob in zip(*pair, strict=True)]
            for pair, named in zip(zip(captions, plain, strict=True), tags, strict=True)
        ]

    def _log_probs_of_stand_ins(self, features: Any, found: Sequence[Sequence[Hypothesis]]) -> list[list[float | None]]:
        """Compute the log-probabilities of captions with stand-ins instead of borrowed words; None without any."""
        words = self._extended
        assert words is not None
        log_probs: list[list[float | None]] = [[None] * len(group) for group in found]
        for rank in range(max(map(len, found), default=0)):
            tokens = [group[rank].tokens if rank < len(group) else [] for group in found]
            plain = [words.plain(line) for line in tokens]
            if plain != tokens:
                scored = self.search_features(features, partial(forced_decoding, tokens=plain))
                for image, (line, other) in enumerate(zip(tokens, plain, strict=True)):
                    if line != other:
                        log_probs[image][rank] = scored[image][0].log_prob
        return log_probs

    @torch.inference_mode()
    def caption_regions(self, regions: Sequence[Regions], search: Callable) -> list[list[Caption]]:
        """Generate captions of images that are given as a detector's regions; `RegionFolder` reads them.

        Returns:
            All captions that the search returns per image; their `regions` are the detector's boxes.
        """
        widths = [len(each.features) for each in regions]
        features = torch.zeros(len(regions), max(widths), regions[0].features.shape[1])
        mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        for row, (each, width) in enumerate(zip(regions, widths, strict=True)):
            features[row, :width], mask[row, :width] = torch.from_numpy(each.features).float(), True
        features, mask = features.to(self.device), mask.to(self.device)
        options: dict[str, Any] = {"search": search, "vocabulary": self.vocabulary, "max_length": self.max_length}
        hypotheses = generate(self.captioner, features, mask, **options)
        groups = []
        for group, each, width in zip(hypotheses, regions, widths, strict=True):
            captions = [self.as_caption(hypothesis, None) for hypothesis in group]
            groups.append(
                [
                    caption._replace(attention=caption.attention[:, :width], regions=each.boxes)
                    if caption.attention is not None
                    else caption
                    for caption in captions
                ]
            )
        return groups

    @torch.inference_mode()
    def forced_captions(
        self, images: Sequence[Any] | Any, texts: Sequence[str] | str, *, map: str = ATTENTION, batch_size: int = 16
    ) -> list[Caption]:
        """Compute the attention weights, or another map, of given captions, one per image, by forced decoding.

        The model reads the given words instead of its own. Words that are not in the vocabulary become <unk>; for
        `bpe`, only their unknown characters do.

        Args:
            images: one image or several, as in `caption`.
            texts: one caption per image; they are tokenized like the training captions.
            map: the map of a word, one of `map_names`.
            batch_size: images decoded together.

        Raises:
            ConfigError: the map does not exist.
            CheckpointError: the model does not have this map.
            DataError: there are not as many captions as images, or an image cannot be read.
        """
        if map != ATTENTION:
            check_maps([map], self)
        images, texts = _listed(images), [texts] if isinstance(texts, str) else list(texts)
        if len(images) != len(texts):
            raise DataError(
                f"forced_captions has {len(images)} images, but {len(texts)} captions. Give one caption per image"
            )
        captions, tokenizer = [], self.vocabulary.tokenizer
        for batch in _batches(list(zip(images, texts, strict=True)), batch_size):
            written = [tokenizer.pieces(tokenizer(text)) for _, text in batch]
            tokens = [[*self.vocabulary.ids(pieces), self.vocabulary.end] for pieces in written]
            pictures = [_picture(image) for image, _ in batch]
            features: Any = self.encode(pictures)
            found = [group[0] for group in self.search_features(features, partial(forced_decoding, tokens=tokens))]
            if map != ATTENTION:
                found = with_maps(self.captioner, features, found, [map], start=self.vocabulary.start)[map]
            named = self.captioner.name_tags(features)
            captions += [
                self.as_caption(each, picture.size, pieces, nouns=nouns)
                for each, picture, pieces, nouns in zip(found, pictures, written, named, strict=True)
            ]
        return captions if map == ATTENTION else [each._replace(sentinel=None) for each in captions]

    @torch.inference_mode()
    def caption_maps(
        self, image: Any, names: Sequence[str] | str, method: str | Callable = "beam", **arguments
    ) -> dict[str, Caption]:
        """Caption one image, and compute several maps of each of its words.

        Args:
            image: a path, a PIL image or a [height, width, 3] uint8 array.
            names: some of `map_names`, or one of them.
            method: as in `caption`.
            **arguments: as in `caption`.

        Returns:
            {name: the caption, with this map as its `attention`}.

        Raises:
            ConfigError: a map does not exist, or tags guide the captions.
            CheckpointError: the model does not have one of these maps.
            DataError: the image cannot be read, or several are given.
        """
        names = [names] if isinstance(names, str) else names
        check_maps(names, self)
        _check_single("caption_maps", image)
        if tuple(names) == (ATTENTION,):
            return {ATTENTION: self.caption(image, method, **arguments)[0]}
        if self.guide is not None:
            raise ConfigError(f"map={names[0]} needs captions without a guide. Set tags=null, or use map=attention")
        picture = _picture(image)
        features: Any = self.encode([picture])
        found = self.search_features(features, with_generator(get_search(method, **arguments)), names=[_name(image, 0)])
        maps = with_maps(self.captioner, features, found[0][:1], names, start=self.vocabulary.start)
        (nouns,) = self.captioner.name_tags(features)
        captions = {name: self.as_caption(made[0], picture.size, nouns=nouns) for name, made in maps.items()}
        # Only the weights of attention itself leave a share to the sentinel.
        return {name: each if name == ATTENTION else each._replace(sentinel=None) for name, each in captions.items()}

    def figure(
        self,
        image: Any,
        kind: str = "grid",
        method: str | Callable = "beam",
        *,
        path: str | Path | None = None,
        map: str = ATTENTION,
        word: str | int | None = None,
        **arguments,
    ) -> "Figure | None":
        """Caption one image, and draw one map per word; or all heads of all layers for one word.

        Args:
            image: a path, a PIL image or a [height, width, 3] uint8 array.
            kind: one of `captioning.inference.figures.FIGURES`: "grid", "cells", "strip", "gaze" or "film"; or "heads".
            method: as in `caption`.
            path: the file to write the figure to, or None; the animations "gaze" and "film" are only drawn into a file.
            map: the map of a word, one of `map_names`; not for "heads".
            word: for "heads", a word of the caption (the first, if it occurs twice) or its position, from 0.
            **arguments: as in `caption`.

        Returns:
            A matplotlib Figure; None for an animation.

        Raises:
            ConfigError: the kind or the map does not exist, or the caption does not have the word.
            CheckpointError: the model does not have this map.
            DataError: the image cannot be read, or several are given.
        """
        from captioning.inference import figures  # imported here because captioning alone does not need matplotlib

        _check_single("figure", image)
        figures.check_kind(kind)
        if kind == figures.HEADS:
            figures.check_heads(self, map=map, word=word)
            assert word is not None  # `check_heads` refuses it
            names = self.captioner.map_names[len(self.captioner.summaries) :]
            captions = self.caption_maps(image, names, method, **arguments)
            return figures.draw_heads(_picture(image), captions, word, grid=self.captioner.head_grid, path=path)
        if word is not None:
            raise ConfigError(f'word={word!r} is for kind="{figures.HEADS}": remove it, or choose this kind')
        caption = self.caption_maps(image, [map], method, **arguments)[map] if map != ATTENTION else None
        caption = caption or self.caption(image, method, **arguments)[0]  # also of a model without attention
        if path is not None:
            figures.save_caption_figure(_picture(image), caption, path, kind)
        return None if kind in figures.MOVING else figures.draw_figure(_picture(image), caption, kind)

    @torch.inference_mode()
    def score_captions(
        self, images: Sequence[Any] | Any, captions: Sequence[str | Sequence[str]] | str, *, batch_size: int = 16
    ) -> list[ScoredCaption | list[ScoredCaption]]:
        """Compute the log-probability and perplexity of given captions, with the `step` that decoding uses.

        Args:
            images: one image or several, as in `caption`.
            captions: for each image a text or a list of texts; they are tokenized like the training captions.
            batch_size: images scored together.

        Returns:
            For each image a ScoredCaption, or a list of them if it was given a list of texts.

        Raises:
            DataError: there are not as many captions as images, an image cannot be read, or scores are not finite.
        """
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            images, captions = [images], cast("Sequence[str | Sequence[str]]", [captions])
        if isinstance(captions, str) or len(images) != len(captions):
            count = "one text" if isinstance(captions, str) else f"{len(captions)} captions"
            raise DataError(
                f"score_captions has {len(images)} images, but {count}. Give a list with one entry per image, each a "
                "text or a list of texts"
            )
        scored: list[ScoredCaption | list[ScoredCaption]] = []
        for batch in _batches(list(zip(images, captions, strict=True)), batch_size):
            inputs = self.encode([_picture(image) for image, _ in batch])
            groups = [[texts] if isinstance(texts, str) else list(texts) for _, texts in batch]
            results = score_texts(self.captioner, inputs, groups, vocabulary=self.vocabulary)
            scored += [
                result[0] if isinstance(texts, str) else result
                for result, (_, texts) in zip(results, batch, strict=True)
            ]
        return scored

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor | tuple[Tensor, ...]:
        """Compute the features of a batch of opened images: [B, …], or [B, V, …] with V > 1 views per image."""
        seen = [
            self.encoder(torch.stack([view(picture) for picture in pictures]).to(self.device)) for view in self.views
        ]
        return seen[0] if len(seen) == 1 else torch.stack(seen, 1)

    def as_caption(
        self,
        hypothesis: Hypothesis,
        size: tuple[int, int] | None,
        written: Sequence[str] | None = None,
        *,
        guided: bool = True,
        nouns: Sequence[str] = (),
    ) -> Caption:
        """Turn a search's result into a `Caption`, with the attention maps of several crops merged.

        Args:
            hypothesis: the search's result.
            size: (width, height) of the image; None for an image that is given as regions.
            written: the pieces of a given caption. They say which <unk> end their word.
            guided: whether tags guided the search, if this predictor has a guide; then articles are corrected.
            nouns: the tags of the image that the model attends to, from `CaptionModel.name_tags`.

        Raises:
            CheckpointError: the checkpoint describes another grid than the model attends to.
        """
        vocabulary = self._extended.words if self._extended else self.vocabulary
        pieces, tokenizer = vocabulary.pieces(hypothesis.tokens), vocabulary.tokenizer
        groups = tokenizer.groups(pieces if written is None else written)
        words = [tokenizer.word([pieces[index] for index in group]) for group in groups]
        words = self._extended.with_articles(words) if self._extended and written is None and guided else words
        weights = None if hypothesis.weights is None else hypothesis.weights[: len(pieces)].float().numpy()
        places = None if hypothesis.places is None else hypothesis.places[: len(pieces)].numpy()
        looked: TagWeights | None = None
        if weights is not None and nouns:
            weights, places, looked = split_tags(weights, places, nouns)
        box = None if size is None else self.transform.box(*size)
        grid = None
        if weights is not None and size is not None:
            grid = grid_of(self.metadata, weights.shape[1] // len(self.views), self.path)
        if len(self.views) > 1 and weights is not None:
            assert size is not None  # `load` refuses crops for models that look at regions
            if grid is None:
                raise CheckpointError(
                    f"{self.path} does not say how many rows and columns its {weights.shape[1] // len(self.views)} "
                    "locations have, so the maps of several crops cannot be merged. Remove crops, or train again"
                )
            boxes = [view.box(*size) for view in self.views]
            weights, places, box = merge_crops(weights, places, boxes=boxes, grid=grid)
        if len(words) < len(pieces):
            weights, places = _per_word(groups, weights, places)
            looked = looked and _tags_per_word(groups, looked)
        # The weights over locations and tags sum to 1 − β; the sentinel has the rest.
        sentinel = None
        if self.has_sentinel and weights is not None:
            sentinel = (1 - weights.sum(1) - (0 if looked is None else looked.weights.sum(1))).clip(0, 1)
        text = tokenizer.join(words)
        facts: dict[str, Any] = {"places": places, "sentinel": sentinel, "grid": grid, "tag_places": looked}
        return Caption(text, words, hypothesis.log_prob, weights, box, hypothesis.score, **facts)


def _per_word(
    groups: Sequence[Sequence[int]], weights: np.ndarray | None, places: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the mean attention weights of each word's pieces, and the location that most of its pieces chose."""
    if weights is not None:
        weights = np.stack([weights[list(group)].mean(0) for group in groups])
    if places is not None:
        places = np.array([np.bincount(places[list(group)]).argmax() for group in groups])
    return weights, places


def _tags_per_word(groups: Sequence[Sequence[int]], tags: TagWeights) -> TagWeights:
    """Return the mean weights of each word's pieces, and the tag (or none) that most of its pieces chose."""
    weights, chosen = _per_word(groups, tags.weights, None if tags.chosen is None else tags.chosen + 1)
    assert weights is not None
    return TagWeights(tags.nouns, weights, None if chosen is None else chosen - 1)


def _check_single(name: str, image: Any) -> None:
    if isinstance(image, list | tuple):
        raise DataError(f"image= takes one image, but got a list of {len(image)}: call {name} for each image")


def _listed(images: Sequence[Any] | Any) -> list[Any]:
    return [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _name(image: Any, number: int) -> str:
    """Return the path of an image, or its number in the list if it has none."""
    return (
        str(image)
        if isinstance(image, str | Path)
        else getattr(image, "filename", "") or f"number {number} of the list"
    )


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except Exception as error:  # PIL decodes lazily, and a decoder may raise anything
            name = getattr(image, "filename", "") or image
            raise DataError(f"cannot read image {name}: {error}. Replace or remove it") from error
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert("RGB")
    return open_picture(Path(image))
