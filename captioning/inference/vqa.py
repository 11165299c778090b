"""Load a trained VQA model and answer questions about images with it, with attention weights."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captioning.checkpoints import (
    FORMAT,
    encoder_metadata,
    grid_of,
    local_checkpoint,
    named_file,
    pick_device,
    read_checkpoint,
    rebuild_encoder,
    rebuild_model,
)
from captioning.config import allowed_plugins, build_trusted, plugins_allowed, plugins_in
from captioning.data import NOTHING, Answers, Box, QuestionBatch, Transform, Vocabulary, encode_question, open_picture
from captioning.decoding import normalized
from captioning.errors import must_be
from captioning.models import Answerer, Encoder
from captioning.text import tokenize

VQA = "vqa"  # the task that these checkpoints name


class Answer(NamedTuple):
    """A model's answer to one question about one image, with G glimpses of L locations.

    Attributes:
        text: the likeliest answer.
        probabilities: {answer: probability} of the likeliest answers, best first.
        attention: [G, L] attention weights, one row per glimpse; None without attention.
        box: the region of the image, in its pixels, that the grid covers.
        places: [G] the one location that hard attention chose per glimpse; None for other kinds.
        unknown: words of the question that are not in the model's vocabulary.
        grid: (rows, columns) of the grid, with rows · columns = L; None without attention.
    """

    text: str
    probabilities: dict[str, float]
    attention: np.ndarray | None
    box: Box
    places: np.ndarray | None
    unknown: list[str]
    grid: tuple[int, int] | None = None


class AnswerPredictor:
    """A trained VQA model that answers questions about images; `load_answerer` builds it.

    Attributes:
        answerer: the model, which takes features (its encoder is the identity).
        metadata: the checkpoint's configuration, as plain containers.
        path: the checkpoint.
        vocabulary: the words of the training questions.
        answers: the answers that the model chooses from.
        max_length: the number of words that questions are cut to.
        transform: turns an image into the encoder's input.
    """

    def __init__(self, answerer: Answerer, metadata: Mapping[str, Any], *, encoder_weights: dict | None, path: Path):
        self.answerer, self.metadata, self.path = answerer.eval(), metadata, path
        self.vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"])
        self.answers = Answers(metadata["answers"])
        self.max_length = metadata["config"]["data"]["max_length"]
        self.transform: Transform = build_trusted(metadata["config"]["transform"])
        self._encoder_weights, self._plugins = encoder_weights, allowed_plugins()

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder that the answerer was trained with: images -> features, built at first use.

        Raises:
            CheckpointError: its weights differ from those used in training.
        """
        with plugins_allowed(self._plugins):
            return rebuild_encoder(self.metadata, self._encoder_weights, self.path).to(self.device).eval()

    @property
    def hard_attention(self) -> str | None:
        """What hard attention looks at, such as "most_likely"; None for other kinds."""
        return self.answerer.hard_attention

    @property
    def device(self) -> torch.device:
        """The device of the answerer's weights."""
        return next(self.answerer.parameters()).device

    @torch.inference_mode()
    def answer(self, image: Any, questions: Sequence[str] | str, *, top: int = 5) -> list[Answer]:
        """Answer one or more questions about one image.

        Args:
            image: a path, a PIL image or a [height, width, 3] uint8 array.
            questions: one question or several.
            top: how many answers to return with their probabilities per question.

        Raises:
            ConfigError: `top` is below 1.
            DataError: the image cannot be read.
        """
        must_be("top", top, least=1)
        questions = [questions] if isinstance(questions, str) else list(questions)
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        picture = picture.convert("RGB") if isinstance(picture, Image.Image) else open_picture(Path(picture))
        encoded = [encode_question(text, self.vocabulary, max_length=self.max_length) for text in questions]
        words = torch.full((1, len(encoded), max(map(len, encoded))), self.vocabulary.pad, device=self.device)
        for slot, ids in zip(words[0], encoded, strict=True):
            slot[: len(ids)] = torch.tensor(ids)
        features = self.encoder(self.transform(picture)[None].to(self.device))
        logits, glimpse = self.answerer(features, words)
        box = self.transform.box(*picture.size)
        return [
            self._answer(logits[0, row], [_row(field, row) for field in glimpse[1:3]], box, text, top)
            for row, text in enumerate(questions)
        ]

    def _answer(self, logits: Tensor, seen: Sequence[np.ndarray | None], box: Box, question: str, top: int) -> Answer:
        best = normalized(logits).exp().sort(descending=True)
        shown = zip(best.indices[:top].tolist(), best.values[:top].tolist(), strict=True)
        probabilities = {self.answers.texts[index]: share for index, share in shown}
        weights, places = seen
        attention = None if weights is None or not weights.shape[-1] else weights
        grid = None if attention is None else grid_of(self.metadata, attention.shape[1], self.path)
        return Answer(next(iter(probabilities)), probabilities, attention, box, places, self._unknown(question), grid)

    def _unknown(self, question: str) -> list[str]:
        return [word for word in tokenize(question) if word not in self.vocabulary.words]


def _row(field: Tensor | None, row: int) -> np.ndarray | None:
    return None if field is None else field[0, row].float().cpu().numpy()


@torch.inference_mode()
def write_answers(answerer: Answerer, batch: QuestionBatch, answers: Answers) -> dict[int, str]:
    """Return {question id: likeliest answer} of a batch, which is moved to the answerer's device."""
    device = next(answerer.parameters()).device
    images, questions, mask = (None if p is None else p.to(device) for p in (batch.images, batch.questions, batch.mask))
    best = answerer(images, questions, mask).logits.argmax(-1).flatten().tolist()
    ids = batch.question_ids.flatten().tolist()
    return {number: answers.texts[index] for number, index in zip(ids, best, strict=True) if number != NOTHING}


def make_answerer_metadata(
    config: Mapping[str, Any], vocabulary: Vocabulary, answers: Answers, encoder: Encoder, *, tuned: bool = False
) -> dict[str, Any]:
    """Return the metadata that a VQA model's checkpoint needs besides its weights, as plain containers."""
    return {
        "format": FORMAT,
        "task": VQA,
        "plugins": plugins_in(config[key] for key in ("encoder", "transform", "model")),
        "config": {key: config[key] for key in ("encoder", "transform", "model", "data", "seed")},
        "vocabulary": vocabulary.state_dict(),
        "answers": answers.state_dict(),
        **encoder_metadata(config, encoder, tuned=tuned),
    }


def load_answerer(
    path: str | Path, *, device: str = "auto", hard_attention: str | None = None, plugins: Sequence[str] = ()
) -> AnswerPredictor:
    """Load a VQA model from a checkpoint. No code from the file is run.

    Args:
        path: `checkpoints/best.ckpt` of a run.
        device: as for `captioning.inference.load`.
        hard_attention: as for `captioning.inference.load`.
        plugins: as for `captioning.inference.load`.

    Raises:
        CheckpointError: the file is missing, is not a VQA model's checkpoint, or its weights do not fit its metadata.
        ConfigError: hard_attention is given for a model without hard attention, or is not one of its modes.
    """
    path = local_checkpoint(path)
    with plugins_allowed(plugins):
        checkpoint = read_checkpoint(path, task=VQA)
        metadata = checkpoint["captioning"]
        answerer, encoder_weights = rebuild_model(
            checkpoint, path, hard_attention=hard_attention, answers=len(metadata["answers"])
        )
        with named_file(path):
            model = cast(Answerer, answerer.to(pick_device(device)))
            return AnswerPredictor(model, metadata, encoder_weights=encoder_weights, path=path)
