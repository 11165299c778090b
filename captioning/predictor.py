"""A trained captioner, out of a checkpoint: pictures in, captions and attention out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captioning.checkpoints import FORMAT, check_shapes, load_weights, read_checkpoint
from captioning.config import build_trusted
from captioning.data.pictures import Box, Transform, open_picture, upright
from captioning.data.vocabulary import Vocabulary
from captioning.decoding import Hypothesis
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.likelihood import ScoredCaption, score_texts
from captioning.models.captioner import Captioner
from captioning.searches import named, seeded, with_words


class Caption(NamedTuple):
    """A caption of one picture.

    text: the words, joined by spaces. tokens: the words. log_prob: natural logarithm of the caption's probability,
    <end> included. attention: [T, P] weights, a row a word, P places row by row; None without attention.
    box: the region of the picture, in its pixels, that the places cover. score: what the search ranked by.
    places: [T] the one place that hard attention looked at for each word; None for other kinds.
    """

    text: str
    tokens: list[str]
    log_prob: float
    attention: np.ndarray | None
    box: Box
    score: float
    places: np.ndarray | None


class Predictor:
    """Captions pictures with one checkpoint; made by `load`.

    Attributes:
        captioner: takes features (its encoder is the identity). encoder: pictures -> features, built at first use.
        transform: picture -> the encoder's input. vocabulary: of the training split. recipe: all of the checkpoint's
        configuration as plain containers.
    """

    def __init__(self, captioner: Captioner, recipe: Mapping[str, Any], *, encoder_weights: dict | None, path: Path):
        self.captioner, self.recipe, self.path = captioner.eval(), recipe, path
        self.vocabulary = Vocabulary.from_state_dict(recipe["vocabulary"])
        self.transform: Transform = build_trusted(recipe["config"]["transform"])
        self._encoder_weights = encoder_weights

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder that the captioner was trained with.

        Raises:
            CheckpointError: its weights are not those of the training.
        """
        node = self.recipe["config"]["encoder"]
        if self._encoder_weights is None:
            with _named(self.path):
                encoder = build_trusted(node)
            if encoder.fingerprint() != self.recipe["fingerprint"]:
                raise CheckpointError(
                    f"{self.path}: was trained on features of other encoder weights (fingerprint "
                    f"{self.recipe['fingerprint']}; {node.get('name')} with weights={node.get('weights')} now has "
                    f"{encoder.fingerprint()}): install the version of the weights it was trained with"
                )
        else:
            with _named(self.path):
                encoder = build_trusted({**node, "weights": None})
            load_weights(encoder, self._encoder_weights, self.path)
        return encoder.to(self.device).eval()

    @property
    def places(self) -> str | None:
        """What hard attention looks at in decoding; None for other kinds."""
        return getattr(self.captioner.decoder.attention, "decode", None)

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
            method: "greedy", "beam", "diverse_beam", "sample", or a function with the signature of `beam_search`.
            batch_size: pictures searched together.
            arguments: of the method (see `captioning.decoding`): beam_size=3, max_length=20 …; words in them are
                strings of the vocabulary.
        """
        return [captions[0] for captions in self.captions(images, method, batch_size=batch_size, **arguments)]

    def captions(
        self, images: Sequence[Any] | Any, method: str | Callable = "beam", *, batch_size: int = 16, **arguments
    ) -> list[list[Caption]]:
        """As `caption`, but all that the method returns of each picture: its `n_best`, or its `samples`."""
        search = seeded(named(method, **arguments))
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
        images, vocabulary = self.encode(pictures), self.vocabulary
        hypotheses = decode(self.captioner, images, search=search, vocabulary=vocabulary, names=names)
        return [
            [self._caption(hypothesis, self.transform.box(*picture.size)) for hypothesis in group]
            for group, picture in zip(hypotheses, pictures, strict=True)
        ]

    @torch.inference_mode()
    def score_captions(
        self, images: Sequence[Any] | Any, captions: Sequence[str | Sequence[str]] | str, *, batch_size: int = 16
    ) -> list[ScoredCaption | list[ScoredCaption]]:
        """How probable given captions are, by the step that decoding uses.

        Args:
            images: pictures, as in `caption`.
            captions: for each picture a text, or a list of texts; tokenised as the training captions were.
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
        """What the captioner takes of a batch of opened pictures."""
        return self.encoder(torch.stack([self.transform(picture) for picture in pictures]).to(self.device))

    def _caption(self, hypothesis: Hypothesis, box: Box) -> Caption:
        words = self.vocabulary.decode(hypothesis.tokens)
        weights, places = (None if part is None else part[: len(words)] for part in hypothesis[3:])
        weights = None if weights is None else weights.float().numpy()
        places = None if places is None else places.numpy()
        return Caption(" ".join(words), words, hypothesis.log_prob, weights, box, hypothesis.score, places)


def decode(
    captioner: Captioner,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
) -> list[list[Hypothesis]]:
    """Hypotheses for a batch of whatever the captioner's encoder takes (an ensemble: tuples, a part for each member).

    <pad>, <start> and <unk> are never written, but for what the search's `allow` names.

    Raises:
        DataError: word scores are not finite, of the pictures named (by `names`, paths or image ids, or by number).
    """
    state, memory = captioner.begin(images, mask)
    step = _Watched(partial(captioner.step, memory=memory))
    hypotheses = with_words(search, vocabulary)(
        step,
        state,
        batch=_count(images),
        start=vocabulary.start,
        end=vocabulary.end,
        forbidden=(vocabulary.pad, vocabulary.start, vocabulary.unknown),
    )
    step.check(names)
    return hypotheses


class _Watched:
    """A step that notes which images' scores are not finite, and goes on with zeros in their place.

    The note stays on the device until the search is over: to ask at every step would make a GPU wait.
    """

    def __init__(self, step: Callable):
        self.step, self.wrong = step, None

    def __call__(self, token: Tensor, state):
        made = self.step(token, state)
        wrong = ~made.logits.sum(-1).isfinite()  # [B, K]; one pass, and any NaN or infinity shows in a sum
        found = wrong.any(1)
        self.wrong = found if self.wrong is None else self.wrong | found
        return made._replace(logits=made.logits.masked_fill(wrong[..., None], 0.0))

    def check(self, names: Sequence[Any] | None) -> None:
        """A DataError where there were any."""
        places = self.wrong.nonzero().flatten().tolist()
        if places:
            told = [f"number {place} of the batch" if names is None else str(names[place]) for place in places]
            raise DataError(
                f"word scores are not finite for {len(places)} pictures: {', '.join(told[:5])}: their features are "
                "not, or the model's numbers overflow: take an earlier checkpoint, or make the features anew"
            )


def score_captions(
    checkpoint: str | Path,
    images: Sequence[Any] | Any,
    captions: Sequence[str | Sequence[str]] | str,
    *,
    device: str = "auto",
    batch_size: int = 16,
) -> list[ScoredCaption | list[ScoredCaption]]:
    """`Predictor.score_captions` of a checkpoint."""
    return load(checkpoint, device=device).score_captions(images, captions, batch_size=batch_size)


@torch.inference_mode()
def write(
    captioner: Captioner,
    images: Tensor,
    mask: Tensor | None = None,
    *,
    search: Callable,
    vocabulary: Vocabulary,
    names: Sequence[Any] | None = None,
) -> list[str]:
    """The best caption of each image as text; see `decode`."""
    hypotheses = decode(captioner, images, mask, search=search, vocabulary=vocabulary, names=names)
    return [" ".join(vocabulary.decode(best[0].tokens)) for best in hypotheses]


def make_recipe(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    encoder: nn.Module,
    *,
    tuned: bool = False,
    frequencies: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything but weights that a checkpoint needs to caption pictures, as plain containers.

    A frozen encoder's weights go along only where they cannot be had again by name, as those that another run `tuned`;
    document frequencies only where a reward has them (`Reward.state_dict`), for the run that goes on from this one.
    """
    weights = config["encoder"]["weights"]
    again = isinstance(weights, str) and not Path(weights).is_file() and not tuned
    frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
    return {
        "format": FORMAT,
        "config": {key: config[key] for key in ("encoder", "transform", "model", "data", "decoding", "seed")},
        "vocabulary": vocabulary.state_dict(),
        "frequencies": frequencies and {key: _tensor(value) for key, value in frequencies.items()},
        "fingerprint": encoder.fingerprint(),
        "features": {"size": encoder.size, "grid": encoder.output != "fc"},
        "encoder": encoder.state_dict() if frozen and not again else None,
    }


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def load(path: str | Path, *, device: str = "auto", places: str | None = None) -> Predictor:
    """A captioner from a checkpoint that training wrote. Runs no code from the file.

    Args:
        path: checkpoints/best.ckpt of a run.
        device: "cpu", "cuda", …; "auto" takes a GPU where there is one.
        places: what hard attention looks at, "most_likely", "sample" or "expectation"; None: as it was trained to.

    Raises:
        CheckpointError: the file is missing, is not such a checkpoint, or its weights do not fit its recipe.
        ConfigError: places are given for a captioner without hard attention, or are none of these.
    """
    path = Path(path)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = read_checkpoint(path)
    recipe, weights = checkpoint["captioning"], checkpoint["state_dict"]
    own = _strip(weights, "captioner.")
    encoder_weights = _strip(own, "encoder.") or recipe["encoder"]
    own = {name: value for name, value in own.items() if not name.startswith("encoder.")}
    make = partial(
        build_trusted,
        _with_places(recipe["config"]["model"], places),
        feature_size=recipe["features"]["size"],
        grid=recipe["features"]["grid"],
        vocabulary_size=len(recipe["vocabulary"]),
        pad=Vocabulary.pad,
    )
    with _named(path) if places is None else nullcontext():
        with torch.device("meta"):  # takes no memory, whatever sizes a stranger's recipe asks for
            check_shapes(make(), own, path)
        captioner = make()
        load_weights(captioner, own, path)
        predictor = Predictor(captioner.to(device), recipe, encoder_weights=encoder_weights, path=path)
    return predictor


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What a recipe leads to is told with the name of its file."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _with_places(model: Mapping[str, Any], places: str | None) -> Mapping[str, Any]:
    if places is None:
        return model
    attention = model.get("attention")
    if not isinstance(attention, dict) or "decode" not in attention:
        kind = attention.get("_target_") if isinstance(attention, dict) else "none"
        raise ConfigError(f"places={places} is for hard attention: this checkpoint has {kind}")
    return {**model, "attention": {**model["attention"], "decode": places}}


def _strip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _listed(images: Sequence[Any] | Any) -> list[Any]:
    return [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _count(images: Tensor | tuple[Tensor, ...]) -> int:
    return len(images[0] if isinstance(images, tuple) else images)


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except Exception as error:  # it may not have been decoded yet, and a decoder raises anything
            raise DataError(f"picture {getattr(image, 'filename', '') or image}: {error}") from error
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert("RGB")
    return open_picture(Path(image))
