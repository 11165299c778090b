"""Load a trained language model, score and read text with it, and sample more text."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioning.checkpoints import (
    FORMAT,
    check_shapes,
    load_state,
    local_checkpoint,
    named_file,
    read_checkpoint,
    without_memory,
)
from captioning.config import build, build_trusted, plugins_allowed, plugins_in
from captioning.data import Vocabulary, split_text
from captioning.decoding import normalized, sample
from captioning.errors import DataError, must_be
from captioning.models import CaptionModel, RecurrentState

LANGUAGE_MODEL = "language_model"  # the task that these checkpoints name


class ScoredText(NamedTuple):
    """A text of N tokens with the model's log-probabilities and states.

    Attributes:
        tokens: the N characters or words.
        log_probs: [N] natural logarithm of each token's probability, given the tokens before it.
        states: {"hidden 1": [N, H], "cell 1": [N, H], …} of float32 or wider: each layer's state after each token.
            Layer 1 is the one next to the tokens. With a single layer the names are "hidden" and "cell". RNNs and GRUs
            have no "cell".
    """

    tokens: Sequence[str]
    log_probs: np.ndarray
    states: dict[str, np.ndarray]


class LanguageModel:
    """A trained language model that samples and scores text; `load_language_model` builds it.

    Attributes:
        model: a `CaptionModel` with image features of width 0.
        metadata: the checkpoint's configuration, as plain containers.
        vocabulary: the tokens of the training split.
        unit: "characters" or "words".
    """

    def __init__(self, model: CaptionModel, metadata: Mapping[str, Any]):
        self.model, self.metadata = model.eval(), metadata
        self.vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"])
        self.unit: str = metadata["config"]["data"]["unit"]

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def sample(
        self,
        prime: str = "",
        *,
        length: int = 500,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Sample a continuation of `prime`, or the beginning of a file if `prime` is empty.

        Args:
            prime: text to continue; all its tokens must be in the vocabulary.
            length: the largest number of tokens to sample. Sampling stops earlier at the end-of-file token, which
                counts as one.
            temperature: see `captioning.decoding.sample`.
            top_k: see `captioning.decoding.sample`.
            top_p: see `captioning.decoding.sample`.
            seed: see `captioning.decoding.sample`.

        Returns:
            The sampled text, without `prime`.

        Raises:
            ConfigError: an argument is out of range.
            DataError: `prime` has a token that is not in the vocabulary.
        """
        must_be("length", length, least=1)
        *before, last = self._ids(prime)
        state, memory = self.model.begin(torch.zeros(1, 0, device=self.device))
        for token in before:
            state = self.model.step(torch.tensor([[token]], device=self.device), state, memory).state
        vocabulary = self.vocabulary
        (written,) = sample(
            partial(self.model.step, memory=memory),
            state,
            batch=1,
            start=last,
            end=vocabulary.end,
            forbidden=(vocabulary.pad, vocabulary.start, vocabulary.unknown),
            max_length=length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )[0]
        return "".join(vocabulary.decode(written.tokens))

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> list[ScoredText]:
        """Score every token of the texts and return the model's states, with the `step` that sampling uses.

        Each text is read as the beginning of a file. Tokens that are not in the vocabulary are read as <unk>. The
        states of all texts are in memory at once: 4 · layers · H bytes per token, and twice that for an LSTM.
        """
        split = [split_text(text, self.unit) for text in texts]
        ids = [torch.tensor([self.vocabulary.end, *self.vocabulary.ids(tokens)]) for tokens in split]
        lengths = [len(row) - 1 for row in ids]
        rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)  # [B, 1 + T]
        state, memory = self.model.begin(torch.zeros(len(rows), 0, device=self.device))
        targets = torch.nn.functional.pad(rows, (0, 1), value=self.vocabulary.pad)[:, 1:, None]
        steps, states = [], []
        for t in range(rows.shape[1]):
            logits, state, _ = self.model.step(rows[:, t, None], state, memory)
            steps.append(normalized(logits[:, 0]).gather(-1, targets[:, t]).squeeze(-1).cpu())
            states.append(_layers(state))
        log_probs = torch.stack(steps, 1)
        joined = {name: torch.stack([each[name] for each in states[1:]], 1) for name in states[0] if states[1:]}
        return [
            ScoredText(tokens, log_probs[b, :n].numpy(), {name: part[b, :n].numpy() for name, part in joined.items()})
            for b, (tokens, n) in enumerate(zip(split, lengths, strict=True))
        ]

    def bits_per_character(self, text: str) -> float:
        """Compute −log2 p(text) divided by the number of characters; the end-of-file token is not counted.

        Raises:
            DataError: the text is empty.
        """
        (reading,) = self.read([text])
        if not text:
            raise DataError("bits_per_character needs a text of at least one character")
        return -float(reading.log_probs.astype(np.float64).sum()) / math.log(2) / len(text)

    def _ids(self, prime: str) -> list[int]:
        tokens = split_text(prime, self.unit)
        ids = self.vocabulary.ids(tokens)
        lacking = [token for token, index in zip(tokens, ids, strict=True) if index == self.vocabulary.unknown]
        if lacking:
            raise DataError(
                f"prime contains {lacking[0]!r}, which is not in the model's vocabulary. Remove it from prime"
            )
        return [self.vocabulary.end, *ids]


def _layers(state: RecurrentState) -> dict[str, Tensor]:
    """Return {"hidden 1": [B, H], …} on the CPU, at least in float32."""
    names = [f" {layer + 1}" for layer in range(len(state.hidden))] if len(state.hidden) > 1 else [""]
    kinds = [(name, part) for name, part in zip(state._fields, state, strict=True) if part.shape[-1]]
    return {
        name + layer: part[i, :, 0].to(torch.promote_types(part.dtype, torch.float32)).cpu()
        for name, part in kinds
        for i, layer in enumerate(names)
    }


def build_model(node: Mapping[str, Any], vocabulary: Vocabulary, *, make: Callable = build) -> CaptionModel:
    """Build a captioner without an image (features of width 0); for a node from a file, `make` is `build_trusted`."""
    return make(node, feature_size=0, grid=False, vocabulary_size=len(vocabulary), pad=vocabulary.pad)


def make_language_model_metadata(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the metadata that a language model's checkpoint needs besides its weights, as plain containers."""
    return {
        "format": FORMAT,
        "task": LANGUAGE_MODEL,
        "plugins": plugins_in([config["model"]]),
        "config": {key: config[key] for key in ("model", "data", "seed")},
        "vocabulary": vocabulary.state_dict(),
    }


def load_language_model(path: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> LanguageModel:
    """Load a language model from a checkpoint. No code from the file is run.

    Args:
        path: `checkpoints/best.ckpt` of a run.
        device: "cpu", "cuda", …; "auto" uses a GPU if there is one.
        plugins: as for `captioning.inference.load`.

    Raises:
        CheckpointError: the file is missing, is not a language model's checkpoint, or its weights do not fit its
            metadata.
    """
    path = local_checkpoint(path)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with plugins_allowed(plugins):
        checkpoint = read_checkpoint(path, task=LANGUAGE_MODEL)
        metadata = checkpoint["captioning"]
        saved = checkpoint["state_dict"].items()
        weights: dict[str, Tensor] = {k.removeprefix("captioner."): v for k, v in saved if k.startswith("captioner.")}
        vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"])
        make = partial(build_model, metadata["config"]["model"], vocabulary, make=build_trusted)
        with named_file(path):
            with without_memory():
                check_shapes(make(), weights, path)
            model = make()
            load_state(model, weights, path)
    return LanguageModel(model.to(device), metadata)
