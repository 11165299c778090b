"""Load a trained language model, score and read text with it, and sample more text."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioning.checkpoints import FORMAT, check_shapes, load_state, named_file, read_checkpoint, without_memory
from captioning.config import build, build_trusted, plugins_allowed, plugins_in
from captioning.data import Vocabulary, split_text
from captioning.decoding import normalized, sample
from captioning.errors import DataError, must_be
from captioning.models import CaptionModel, RecurrentState

LANGUAGE_MODEL = "language_model"  # the task of these checkpoints


class ScoredText(NamedTuple):
    """What a model made of one text of N tokens.

    tokens: the N characters or words. log_probs: [N] natural logarithms of each one's probability, given those before
    it. states: {"hidden 1": [N, H], "cell 1": …} float32, of each layer after reading each token, 1 next to the tokens;
    "hidden" and "cell" where there is one layer alone, no cell where there is none.
    """

    tokens: Sequence[str]
    log_probs: np.ndarray
    states: dict[str, np.ndarray]


class LanguageModel:
    """Writes and reads text with one checkpoint; made by `load`.

    Attributes:
        model: the CaptionModel without a picture. vocabulary: of the training split. unit: "characters" or "words".
        metadata: all of the checkpoint's configuration as plain containers.
    """

    def __init__(self, model: CaptionModel, metadata: Mapping[str, Any]):
        self.model, self.metadata = model.eval(), metadata
        self.vocabulary = Vocabulary.from_state_dict(metadata["vocabulary"])
        self.unit: str = metadata["config"]["data"]["unit"]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
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
        """What the model goes on with after `prime` (after a file's beginning where that is empty), without it.

        Args:
            prime: text to begin with; all its tokens must be in the vocabulary.
            length: tokens to write at the most, the end of the file among them, after which nothing follows.
            temperature, top_k, top_p, seed: see `decoding.sample`.
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
        """Reads texts side by side, each from a file's beginning, by the step that writing uses.

        Tokens that the vocabulary lacks are read as <unk>. The states of all texts are held at once: 4 · layers · H
        bytes a token, twice that for an LSTM.
        """
        split = [split_text(text, self.unit) for text in texts]
        ids = [torch.tensor([self.vocabulary.end, *self.vocabulary.ids(tokens)]) for tokens in split]
        lengths = [len(row) - 1 for row in ids]
        rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)  # [B, 1 + T]
        state, memory = self.model.begin(torch.zeros(len(rows), 0, device=self.device))
        targets = torch.nn.functional.pad(rows, (0, 1), value=self.vocabulary.pad)[:, 1:, None]
        log_probs, states = [], []
        for t in range(rows.shape[1]):
            logits, state, _ = self.model.step(rows[:, t, None], state, memory)
            log_probs.append(normalized(logits[:, 0]).gather(-1, targets[:, t]).squeeze(-1).cpu())
            states.append(_layers(state))
        log_probs = torch.stack(log_probs, 1)
        joined = {name: torch.stack([each[name] for each in states[1:]], 1) for name in states[0] if states[1:]}
        return [
            ScoredText(tokens, log_probs[b, :n].numpy(), {name: part[b, :n].numpy() for name, part in joined.items()})
            for b, (tokens, n) in enumerate(zip(split, lengths, strict=True))
        ]

    def bits_per_character(self, text: str) -> float:
        """−log2 p(text) per character of it, the file's end not counted."""
        (reading,) = self.read([text])
        if not text:
            raise DataError("a text without characters has no bits per character")
        return -float(reading.log_probs.astype(np.float64).sum()) / math.log(2) / len(text)

    def _ids(self, prime: str) -> list[int]:
        tokens = split_text(prime, self.unit)
        ids = self.vocabulary.ids(tokens)
        lacking = [token for token, index in zip(tokens, ids, strict=True) if index == self.vocabulary.unknown]
        if lacking:
            raise DataError(f"prime holds {lacking[0]!r}, which the model's vocabulary lacks: leave it out")
        return [self.vocabulary.end, *ids]


def _layers(state: RecurrentState) -> dict[str, Tensor]:
    """{"hidden 1": [B, H], …}, on the CPU, in float32 at least."""
    names = [f" {layer + 1}" for layer in range(len(state.hidden))] if len(state.hidden) > 1 else [""]
    kinds = [(name, part) for name, part in zip(state._fields, state, strict=True) if part.shape[-1]]
    return {
        name + layer: part[i, :, 0].to(torch.promote_types(part.dtype, torch.float32)).cpu()
        for name, part in kinds
        for i, layer in enumerate(names)
    }


def build_model(node: Mapping[str, Any], vocabulary: Vocabulary, *, make: Callable = build) -> CaptionModel:
    """The captioner that sees nothing: features of width 0. `make` is build_trusted for a node out of a file."""
    return make(node, feature_size=0, grid=False, vocabulary_size=len(vocabulary), pad=vocabulary.pad)


def make_language_model_metadata(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Everything but weights that a checkpoint needs to write text, as plain containers."""
    return {
        "format": FORMAT,
        "task": LANGUAGE_MODEL,
        "plugins": plugins_in([config["model"]]),
        "config": {key: config[key] for key in ("model", "data", "seed")},
        "vocabulary": vocabulary.state_dict(),
    }


def load_language_model(path: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> LanguageModel:
    """A language model from a checkpoint that training wrote. Runs no code from the file.

    Args:
        path: checkpoints/best.ckpt of a run.
        device: "cpu", "cuda", …; "auto" takes a GPU where there is one.
        plugins: as for `captioning.inference.load`.

    Raises:
        CheckpointError: the file is missing, is not such a checkpoint, or its weights do not fit its metadata.
    """
    path = Path(path)
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
