"""Train a language model on running text: a captioner without an image."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from captioning.checkpoints import same_words
from captioning.config import LanguageModelTrainConfig, build
from captioning.data import Vocabulary, Windows, encode_texts, only, split_text
from captioning.errors import ConfigError, must_be
from captioning.inference import LANGUAGE_MODEL, build_model, make_language_model_metadata
from captioning.tasks.parts import Parts
from captioning.training import digest_of

_SPLITS = ("train", "val")


class LanguageModelTask:
    """The task of training a language model; it is validated by the likelihood of all text of the validation split."""

    name: ClassVar = LANGUAGE_MODEL
    schema: ClassVar = LanguageModelTrainConfig

    def __call__(self, config: Mapping[str, Any], *, resumed: Mapping | None, started: Mapping | None) -> Parts:
        """Build the model and everything that trains and scores it.

        Args:
            config: the checked settings of the run.
            resumed: the checkpoint to resume from, if any.
            started: the checkpoint whose weights the run starts from, if any.

        Raises:
            ConfigError: a setting cannot work.
            DataError: a text file is missing or too short.
        """
        data, loader = config["data"], config["loader"]
        _one_device(config["trainer"])
        for key in ("batch_size", "val_batch_size"):
            must_be(f"loader.{key}", loader[key], least=1)
        texts = build(data["reader"])
        tokens = (split_text(text, data["unit"]) for _, text in texts["train"])
        vocabulary = Vocabulary.build(tokens, min_count=data["min_count"])
        for key, checkpoint in (("resume", resumed), ("start_from", started)):
            same_words(key, checkpoint, vocabulary)
        model = build_model(config["model"], vocabulary)
        splits = {split: encode_texts(texts[split], vocabulary, unit=data["unit"]) for split in _SPLITS}
        streams = {"train": loader["batch_size"], "val": loader["val_batch_size"]}
        windows = [Windows(splits[s], streams=streams[s], window=data["window"]) for s in _SPLITS]
        from captioning.training import CaptionModule

        module = CaptionModule(
            *windows, batch_size=1, val_batch_size=1, seed=config["seed"], collate=only, shuffle=False
        )
        zeros, _ = model.begin(torch.zeros(streams["train"], 0))
        return Parts(
            model,
            build(config["objective"], zeros=zeros),
            predict=_predict,
            score=_score,
            monitor="val/bits_per_character",
            mode="min",
            metadata=make_language_model_metadata(config, vocabulary),
            load=lambda: (module, _about(texts, data["unit"], vocabulary)),
            digest=digest_of([split, *text] for split in _SPLITS for text in texts[split]),
            encoder=model.encoder,
        )


def _one_device(trainer: Mapping[str, Any]) -> None:
    for key in ("devices", "num_nodes"):
        if trainer.get(key, 1) not in (1, "1"):
            raise ConfigError(
                f"trainer.{key}={trainer[key]}: a language model trains on one device, because each window of text "
                f"continues the state of the one before. Set trainer.{key}=1; for more streams, raise loader.batch_size"
            )


def _predict(model, batch, loss) -> dict[int, tuple[float, int, int]]:
    """Return {position of the window: (nats, tokens, characters)}; the loss is a mean over the streams."""
    nats = float(loss.total) * len(batch.positions)
    return {int(batch.positions[0]): (nats, int(loss.words), int(batch.characters))}


def _score(found: Mapping[int, tuple[float, int, int]]) -> dict[str, float]:
    """Return the scores of all text: nats per token, bits per character, and perplexity = exp(nats per token)."""
    nats, tokens, characters = map(sum, zip(*found.values(), strict=True))
    bits = nats / math.log(2) / characters
    names = {"nats": nats / tokens, "bits_per_character": bits, "perplexity": math.exp(nats / tokens)}
    return {f"val/{name}": value for name, value in names.items()}


def _about(texts, unit: str, vocabulary) -> str:
    train, val = (f"{sum(len(t.text) for t in texts[split]):,} characters in {len(texts[split])}" for split in _SPLITS)
    known = vocabulary.coverage(split_text(text, unit) for _, text in texts["val"])
    return (
        f"data: {train} training file(s), {val} validation file(s); vocabulary: {len(vocabulary):,} {unit}, which "
        f"cover {known:.2%} of the validation text"
    )
