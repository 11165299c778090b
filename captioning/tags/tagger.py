"""Tag photos with an ImageNet classifier: nouns with a confidence and an evidence map.

Several crops of a photo are classified, so that small things are found too. The probabilities of all classes with the
same noun are added up, averaged over the crops, and calibrated. The map of a noun is a class activation map (Zhou et
al. 2016, "Learning Deep Features for Discriminative Localization"): the classifier is applied at each location of the
grid.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from captioning.data import CORNERS, Box, Transform
from captioning.errors import ConfigError, must_be
from captioning.models import Classifier, efficientnet_lite_classifier, timm_classifier, torchvision_classifier
from captioning.tags.calibration import LITE0_CALIBRATION, Calibration
from captioning.tags.noun_classes import all_nouns, classes_of
from captioning.tags.nouns import kind_of
from captioning.tags.probe import Probe, person_probe
from captioning.tags.tag import Tag

FAMILIES: dict[str, Callable[..., Classifier]] = {
    "efficientnet_lite": efficientnet_lite_classifier,
    "torchvision": torchvision_classifier,
    "timm": timm_classifier,
}


class Evidence(NamedTuple):
    """What the classifier computed for one photo, before calibration.

    Attributes:
        probabilities: [V, N], of N nouns in V views: the entire photo, its crops, and the windows of its grid.
        boxes: the region of each view, in pixels of the photo.
        maps: [R, C, N], the probabilities at each location of the grid over the entire photo.
    """

    probabilities: Tensor
    boxes: list[Box]
    maps: Tensor


class Tagger(nn.Module):
    """Name the things in photos.

    Args:
        classifier: encoder and head of an ImageNet classifier.
        calibration: constants that turn probabilities into confidences.
        crops: also classify the four corners of the photo, each of this share of both sides, for each of these shares.
            Each corner takes as long as the photo itself.
        windows: also classify the four corners of the grid over the entire photo, for each of these shares of its rows
            and columns, rounded. These take almost no time.
        probes: find further things, which ImageNet has no class for.

    Attributes:
        nouns: the N nouns that can be found, those of the probes last.

    Raises:
        ConfigError: a share is not between 0 and 1.
    """

    classes: Tensor

    def __init__(
        self,
        classifier: Classifier,
        *,
        calibration: Calibration = LITE0_CALIBRATION,
        crops: Sequence[float] = (0.65,),
        windows: Sequence[float] = (),
        probes: Sequence[Probe] = (),
    ):
        super().__init__()
        for name, shares in (("crops", crops), ("windows", windows)):
            for share in shares:
                must_be(f"tags.{name}", share, above=0, below=1)
        self.encoder, self.head = classifier.encoder, classifier.head
        self.calibration, self.crops, self.windows = calibration, tuple(crops), tuple(windows)
        self.nouns = all_nouns()
        self.kinds = [kind_of(noun) for noun in self.nouns]
        size = self.encoder.image_size
        self.transform = Transform(size if isinstance(size, int) else list(size))
        self.views = [
            self.transform,
            *(self.transform.cropped(share, corner) for share in self.crops for corner in CORNERS),
        ]
        self.probes = tuple(probes)
        self.register_buffer("classes", classes_of(self.nouns).float(), persistent=False)
        self.nouns += [probe.noun for probe in self.probes]
        self.eval()

    def tag(self, photo: Image.Image, *, min_confidence: float = 0.1, most: int | None = None) -> list[Tag]:
        """Return the tags of one photo, the most certain first.

        Args:
            photo: an upright photo; see `captioning.data.open_picture`.
            min_confidence: leave out tags below this confidence.
            most: largest number of tags; None for all.
        """
        return self.tags_of(self.evidence(photo), min_confidence=min_confidence, most=most)

    def tag_all(self, photos: Sequence[Image.Image], **options: Any) -> list[list[Tag]]:
        """Return the tags of several photos; see `tag`."""
        return [self.tag(photo, **options) for photo in photos]

    @torch.inference_mode()
    def tag_grid(
        self, grid: Tensor, size: tuple[int, int], *, min_confidence: float = 0.1, most: int | None = None
    ) -> list[Tag]:
        """Return the tags of a photo whose grid over the entire photo is known: crops are not used, windows are.

        Args:
            grid: [L, D], as the encoder of this tagger computes it.
            size: width and height of the photo in pixels.
            min_confidence: as for `tag`.
            most: as for `tag`.

        Raises:
            ValueError: the grid has another shape.
        """
        if grid.shape != (self.encoder.places, self.encoder.size):
            raise ValueError(f"grid must be [{self.encoder.places}, {self.encoder.size}], not {list(grid.shape)}")
        evidence = self._evidence(grid[None], [self.transform.box(*size)])
        return self.tags_of(evidence, min_confidence=min_confidence, most=most)

    @torch.inference_mode()
    def evidence(self, photo: Image.Image) -> Evidence:
        """Compute the probabilities of all nouns in all views of a photo."""
        images = torch.stack([view(photo) for view in self.views]).to(self.classes.device)
        return self._evidence(self.encoder(images), [view.box(*photo.size) for view in self.views])

    def tags_of(self, evidence: Evidence, *, min_confidence: float = 0.1, most: int | None = None) -> list[Tag]:
        """Calibrate the evidence and return tags, the most certain first; see `tag`."""
        confidences = self.confidences(evidence.probabilities.mean(0))
        best = evidence.probabilities.argmax(0).tolist()
        maps = evidence.maps.permute(2, 0, 1).cpu().numpy()
        order = confidences.argsort(descending=True, stable=True)[:most].tolist()
        return [
            Tag(self.nouns[noun], confidence, evidence.boxes[best[noun]], maps[noun].copy())
            for noun in order
            if (confidence := confidences[noun].item()) >= min_confidence
        ]

    def confidences(self, probabilities: Tensor) -> Tensor:
        """Calibrate the probabilities [N] of all nouns, averaged over the views."""
        classes, probed = probabilities[: len(self.kinds)], probabilities[len(self.kinds) :]
        found = [probe.confidence(value)[None] for probe, value in zip(self.probes, probed, strict=True)]
        return torch.cat((self.calibration.confidence(classes, self.kinds), *found))

    def noun_probabilities(self, vectors: Tensor) -> Tensor:
        """Return the probabilities [..., N] of nouns in feature vectors [..., D]: sums over classes, then probes."""
        probabilities = (self.head(vectors) / self.calibration.temperature).softmax(-1)
        probed = [probe.probability(vectors)[..., None] for probe in self.probes]
        return torch.cat(((probabilities @ self.classes).clamp(max=1.0), *probed), -1)

    def _evidence(self, grids: Tensor, boxes: Sequence[Box]) -> Evidence:
        """Return the evidence of grids [V, L, D] over the entire photo and its crops, whose regions are `boxes`."""
        rows, columns = self.encoder.grid_shape or (1, 1)
        grid = grids[0].unflatten(0, (rows, columns))  # [R, C, D]
        vectors, regions = [*grids.mean(1)], list(boxes)
        for share in self.windows:
            height, width = max(1, round(share * rows)), max(1, round(share * columns))
            for top in (0, rows - height):
                for left in (0, columns - width):
                    vectors.append(grid[top : top + height, left : left + width].mean((0, 1)))
                    regions.append(_part(boxes[0], left / columns, top / rows, width / columns, height / rows))
        return Evidence(self.noun_probabilities(torch.stack(vectors)), regions, self.noun_probabilities(grid))


def load_tagger(
    name: str = "efficientnet-lite0",
    *,
    family: str = "efficientnet_lite",
    weights: str | None = "package",
    calibration: Calibration = LITE0_CALIBRATION,
    crops: Sequence[float] = (0.65,),
    windows: Sequence[float] = (),
    probes: Sequence[Probe] | None = None,
    device: str = "cpu",
) -> Tagger:
    """Load a classifier and build a `Tagger` from it.

    Args:
        name: the network, as for `efficientnet_lite_encoder`, `torchvision_encoder` or `timm_encoder`.
        family: "efficientnet_lite", "torchvision" or "timm".
        weights: the weights, as for the encoders: "package", "DEFAULT" or "pretrained" for the family's own.
        calibration: see `Tagger`. The constants were measured with EfficientNet-Lite0; the confidences of other
            networks are only roughly right.
        crops: see `Tagger`.
        windows: see `Tagger`.
        probes: see `Tagger`; None: the probe for people if the network is the default one, otherwise none.
        device: "cpu", "cuda", …

    Raises:
        ConfigError: an argument is unknown, or the network cannot classify parts of its grid; see
            `torchvision_classifier`.
        CheckpointError: the weights cannot be loaded.
    """
    if family not in FAMILIES:
        raise ConfigError(f"tags.family must be one of {', '.join(FAMILIES)}, not {family!r}")
    classifier = FAMILIES[family](name, weights=weights)
    if probes is None:
        probes = (
            [person_probe()]
            if (name, family, weights) == ("efficientnet-lite0", "efficientnet_lite", "package")
            else []
        )
    return Tagger(classifier, calibration=calibration, crops=crops, windows=windows, probes=probes).to(device)


def _part(box: Box, left: float, top: float, width: float, height: float) -> Box:
    """Return a part of a region, given in shares of its sides."""
    across, down = box.right - box.left, box.bottom - box.top
    x, y = box.left + left * across, box.top + top * down
    return Box(x, y, x + width * across, y + height * down)
