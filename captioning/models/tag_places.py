"""Let attention look at the tags of an image too: nouns that a classifier finds in the encoder's grid.

    locations = tags(features, adapted)     once per image: [B, L, D] and [B, L, D'] -> [B, L + N, D']
    grid, all_locations = tags.arrange(…)   also for the joined locations of several crops
    nouns = tags.name(features)             the N nouns of each image, in the order of their locations

You et al. 2016 ("Image Captioning with Semantic Attention") let a captioner attend to words that detectors find in the
image. We append the embeddings of N nouns to the grid, so that one attention chooses between locations and nouns. The
nouns come from the encoder's own classifier, which classifies the mean over the grid: features are stored as before.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captioning.errors import ConfigError, must_be
from captioning.models.classifier_heads import IMAGENET_CLASSES
from captioning.models.ops import Dropout

SMALLEST = 1e-6  # smallest probability of a noun whose logarithm is used


class NoTags(nn.Module):
    """No tags: attention covers the locations of the grid only.

    Args:
        feature_size: Not used.
        width: Not used.
        grid: Not used.
        regions: Not used.
        dropout: Not used.
    """

    count = 0  # locations that are appended per view of an image

    def __init__(
        self,
        feature_size: int,
        width: int,
        *,
        grid: bool | tuple[int, int] = False,
        regions: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()

    def forward(self, features: Tensor, adapted: Tensor) -> Tensor:
        """Return the adapted features unchanged."""
        return adapted

    def arrange(self, locations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the locations of the grid, and all locations: the same."""
        return locations, locations


class TagPlaces(nn.Module):
    """Append the embeddings of an image's most probable nouns to its grid, as further locations for attention.

    The classifier is applied to the mean over the grid, as in its own network. The probability p_i of noun i is the sum
    over its classes. The noun's vector is E_i + c · log p_i. E and c are learned with the captioner; E starts small and
    c at 0. Means over windows of the grid were tried too: on Flickr8k they find no more nouns of the captions.

    The classifier and the nouns of its classes are constants (see `fill`). They are saved with the model's weights, so
    that a checkpoint has the same nouns wherever it is loaded.

    Args:
        feature_size: D, the size of the encoder's features.
        width: D', the size of the adapted features.
        grid: Rows and columns of the grid.
        regions: Whether the locations are a detector's regions.
        dropout: On the appended vectors, as on adapted features.
        nouns: The nouns that can be found.
        most: N, the number of nouns per image.
        classes: Number of classes.

    Attributes:
        nouns: The nouns that can be found.
        count: N.

    Raises:
        ConfigError: There is no grid of known rows and columns, there are no nouns, or a number is out of range.
    """

    weight: Tensor
    bias: Tensor
    noun_classes: Tensor

    def __init__(
        self,
        feature_size: int,
        width: int,
        *,
        grid: bool | tuple[int, int] = False,
        regions: bool = False,
        dropout: float = 0.0,
        nouns: Sequence[str] | None = None,
        most: int = 8,
        classes: int = IMAGENET_CLASSES,
    ):
        super().__init__()
        if regions or not isinstance(grid, tuple):
            has = "a detector's regions" if regions else "no grid" if not grid else "a grid of unknown shape"
            raise ConfigError(
                f"model/tags=places needs an encoder with a grid, but this one has {has}. Set encoder.output=grid "
                "or model/tags=none"
            )
        if not nouns:
            raise ConfigError("model.tags.nouns is empty: list one noun or more, or set model.tags.nouns=null")
        if twice := sorted(noun for noun in set(nouns) if list(nouns).count(noun) > 1):
            raise ConfigError(f"model.tags.nouns contains {twice[0]!r} twice. Remove one")
        must_be("model.tags.most", most, least=1, most=len(nouns))
        self.nouns, self.count, self.places = list(nouns), most, grid[0] * grid[1]
        self.embedding = nn.Embedding(len(self.nouns), width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.confidence = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(dropout)
        self.register_buffer("weight", torch.zeros(classes, feature_size))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("noun_classes", torch.zeros(classes, len(self.nouns), dtype=torch.bool))

    @torch.no_grad()
    def fill(self, weight: Tensor, bias: Tensor, noun_classes: Tensor) -> None:
        """Set the classifier and the nouns of its classes.

        The classifier is rounded to float16, so that an export in float16 finds the same nouns.

        Args:
            weight: [classes, D].
            bias: [classes].
            noun_classes: [classes, nouns] bool, whether a class adds to the probability of a noun.

        Raises:
            ValueError: A shape differs.
        """
        for name, value in (("weight", weight.half()), ("bias", bias.half()), ("noun_classes", noun_classes)):
            own = self.get_buffer(name)
            if own.shape != value.shape:
                raise ValueError(f"{name} must be {list(own.shape)}, not {list(value.shape)}")
            own.copy_(value)

    @torch.no_grad()
    def find(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Find the N most probable nouns of each image.

        Args:
            features: The encoder's features [B, L, D].

        Returns:
            The nouns' numbers [B, N], the most probable first, and log p [B, N].
        """
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(
            features.device.type, enabled=False
        ):  # the nouns do not depend on the precision of training
            mean = features.to(dtype).mean(1)
            classes = nn.functional.linear(mean, self.weight.to(dtype), self.bias.to(dtype)).softmax(-1)
            found = (classes @ self.noun_classes.to(dtype)).topk(self.count)
        return found.indices, found.values.clamp(SMALLEST, 1.0).log()

    def forward(self, features: Tensor, adapted: Tensor) -> Tensor:
        """Append the nouns' vectors to the adapted features: [B, L, D'] -> [B, L + N, D'].

        Args:
            features: The encoder's features [B, L, D], from before the adapter.
            adapted: [B, L, D'].
        """
        numbers, log_p = self.find(features)
        vectors = self.embedding(numbers) + log_p.to(self.confidence.dtype)[..., None] * self.confidence
        return torch.cat((adapted, self.dropout(vectors).to(adapted.dtype)), 1)

    def arrange(self, locations: Tensor) -> tuple[Tensor, Tensor]:
        """Move the nouns of all views of an image behind the grids of all views.

        Args:
            locations: [B, V · (L + N), D'], view by view.

        Returns:
            The grids' locations [B, V · L, D'], and all locations [B, V · L + V · N, D'].
        """
        views = locations.unflatten(1, (-1, self.places + self.count))
        grid = views[:, :, : self.places].flatten(1, 2)
        return grid, torch.cat((grid, views[:, :, self.places :].flatten(1, 2)), 1)

    def name(self, features: Tensor) -> list[list[str]]:
        """Return the nouns of each image, the most probable first; see `find`."""
        return [[self.nouns[number] for number in row] for row in self.find(features)[0].tolist()]
