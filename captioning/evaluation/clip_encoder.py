"""Embed images and texts with a CLIP model, for scores that look at the image.

Torch and open_clip are imported when the first score needs them, so importing this file is fast.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from captioning.errors import ConfigError, DataError, must_be
from captioning.evaluation.clip_model import RANDOM_WEIGHTS, ClipChoice, LoadedClip, load_clip
from captioning.io import counted, usable_cores

if TYPE_CHECKING:
    from torch import Tensor

_THREADS = min(8, usable_cores())  # that decode images
_SHOWN = 3  # faults in an error message


class ClipEncoder:
    """A CLIP model (Radford et al. 2021) with its tokenizer and its image transform.

    Embeddings are kept: images and texts that several calls share, such as the references, are embedded once.

    Args:
        model: name of a model of open_clip, such as "ViT-B-32-quickgelu"; "hf-hub:OWNER/NAME" for a model of the
            Hugging Face Hub; or "local-dir:FOLDER".
        weights: a name of weights that open_clip can download, such as "openai"; a file with weights of this model; or
            "random", for tests. None: the own weights of a model of a hub or a folder.
        half: whether to compute in 16 bits on a GPU, as the authors of CLIPScore did.
        batch_size: images or texts embedded together.
        device: "cpu", "cuda", …; "auto" uses a GPU if there is one.

    Raises:
        ConfigError: the batch size is out of its range.
    """

    group: ClassVar[str] = "metrics.clip"  # the group of the settings, for error messages
    advice: ClassVar[str] = "Set it to openai, or to a file"

    def __init__(
        self, model: str, weights: str | None, *, half: bool = True, batch_size: int = 64, device: str = "auto"
    ):
        must_be(f"{self.group}.batch_size", batch_size, least=1)
        self.choice = ClipChoice(self.group, model, weights, self.advice)
        self.half, self.batch_size, self.device = half, batch_size, device
        self._loaded: LoadedClip | None = None
        self._images: dict[Path, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    @property
    def random(self) -> bool:
        """Whether the weights are random, so that the scores mean nothing."""
        return self.choice.weights == RANDOM_WEIGHTS

    @property
    def english_only(self) -> bool:
        """Whether the model is known to be trained on English text only."""
        return self.choice.weights == "openai"

    def describe(self) -> str:
        """Return the names of the model and of its weights, as `ClipChoice.describe` gives them."""
        return self.choice.describe()

    def prepare(self) -> None:
        """Load the model, unless it is loaded already; weights with a name are downloaded once.

        Raises:
            ConfigError: a package is missing; the model or the weights do not exist, do not fit or cannot be
                downloaded; or there is no such device.
        """
        self._ready()

    def embed_images(self, paths: Sequence[Path]) -> np.ndarray:
        """Return the embeddings [I, D] of I image files.

        Each image is decoded as in training, upright and in RGB. Then the model's own transform follows: for CLIP, the
        short side becomes 224 pixels, by bicubic interpolation, and the center is cut out.

        Raises:
            ConfigError: as for `prepare`.
            DataError: some files are not readable images; the message names the first of them.
        """
        self.prepare()  # before the threads, which would all load the model
        import torch

        faults: list[str] = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for batch in self._new(paths, self._images, kind="images"):
                read = list(pool.map(self._pixels, batch))
                faults += [each for each in read if isinstance(each, str)]
                pixels = [each for each in read if not isinstance(each, str)]
                if not faults:  # otherwise only the faults of all other images are collected
                    self._images |= zip(batch, self._encode("encode_image", torch.stack(pixels)), strict=True)
        if faults:
            shown = "; ".join(faults[:_SHOWN]) + ("; …" if len(faults) > _SHOWN else "")
            raise DataError(
                f"{self.group} cannot read {counted(len(faults), 'image')}, so replace or remove them: {shown}"
            )
        return np.stack([self._images[path] for path in paths])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [T, D] of T texts; CLIP's tokenizer cuts a text after 77 tokens.

        Raises:
            ConfigError: as for `prepare`.
        """
        for batch in self._new(texts, self._texts, kind="texts"):
            self._texts |= zip(batch, self._encode("encode_text", self._ready().tokenizer(batch)), strict=True)
        return np.stack([self._texts[text] for text in texts])

    def _new(self, items: Sequence[Any], known: dict[Any, np.ndarray], *, kind: str) -> Iterator[list[Any]]:
        """Yield batches of the items that have no embedding yet."""
        from tqdm import tqdm

        new = [item for item in dict.fromkeys(items) if item not in known]
        with tqdm(desc=f"{kind} for {self.group}", unit=kind[:-1], total=len(new), disable=None) as bar:
            for start in range(0, len(new), self.batch_size):
                yield new[start : start + self.batch_size]
                bar.update(len(new[start : start + self.batch_size]))

    def _pixels(self, path: Path) -> "Tensor | str":
        """Return the model's input for an image file, or why there is none."""
        from captioning.data import open_picture

        try:
            return self._ready().transform(open_picture(path))
        except DataError as error:
            return str(error)

    def _encode(self, method: str, batch: "Tensor") -> np.ndarray:
        """Return the embeddings of a batch of images or of token ids, in 32 bits."""
        import torch

        loaded = self._ready()
        batch = batch.to(loaded.device, loaded.dtype if batch.is_floating_point() else None)
        with torch.inference_mode():
            rows = getattr(loaded.model, method)(batch)
        result = rows.float().cpu().numpy()
        if not np.isfinite(result).all():
            raise ConfigError(
                f"{self.group}.weights={self.choice.weights}: some embeddings are not finite numbers. Use other "
                f"weights, or set {self.group}.half=false"
            )
        return result

    def _ready(self) -> LoadedClip:
        if self._loaded is None:
            import torch

            from captioning.checkpoints import pick_device

            try:
                device = pick_device(self.device)
            except ConfigError as error:
                raise ConfigError(str(error).replace("device=", f"{self.group}.device=")) from error
            half = self.half and torch.device(device).type == "cuda"
            self._loaded = load_clip(self.choice, device=device, half=half)
        return self._loaded


class PacEncoder(ClipEncoder):
    """The CLIP model of PAC-S (Sarto et al. 2023), whose weights are a file of its authors."""

    group: ClassVar[str] = "metrics.pac"
    advice: ClassVar[str] = (
        "Download clip_ViT-B-32.pth (linked in https://github.com/aimagelab/pacscore), and set metrics.pac.weights=FILE"
    )

    @property
    def english_only(self) -> bool:
        """Whether the model is known to be trained on English text only: it continues OpenAI's CLIP."""
        return True
