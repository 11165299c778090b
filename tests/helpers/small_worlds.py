"""Images with more and fewer locations, captions of several lengths, and losses of them by the equations."""

from typing import NamedTuple

import torch
from paper_captioner import unevenness, word_losses
from toys import END, PAD, START

from captioning.data import CaptionBatch

P, V = 3, 6  # locations; words, of which 4 and 5 are no special tokens
SHARE = 0.4  # of the target that the teacher's distribution is


class World(NamedTuple):
    """Images with some of P locations, and captions of them.

    locations: those of each image. captions: of each image, words without <end>; None: a missing slot.
    """

    locations: list[tuple[int, ...]]
    captions: list[list[list[int] | None]]

    def batch(self) -> CaptionBatch:
        images = torch.randn(len(self.locations), P, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        mask = torch.tensor([[place in real for place in range(P)] for real in self.locations])
        images[~mask] = 100.0  # what is there is no feature
        slots = max(map(len, self.captions))
        length = 2 + max(len(words) for _, _, words in self.real())  # a column of padding, too
        tokens = torch.full((len(images), slots, length), PAD)
        for image, slot, words in self.real():
            tokens[image, slot, : len(words) + 1] = torch.tensor([START, *words])
        return CaptionBatch(torch.arange(len(images)) + 10, images, None if mask.all() else mask, tokens)

    def real(self):
        """(image, slot, words with <end>) of each caption."""
        return [
            (image, slot, [*words, END])
            for image, captions in enumerate(self.captions)
            for slot, words in enumerate(captions)
            if words is not None
        ]


class SoftTargets:
    """A teacher that knows the captions of a world, but for those without a word."""

    def __call__(self, image_ids, tokens):
        ids = torch.zeros(*tokens.shape[:2], tokens.shape[2] - 1, 2, dtype=torch.int64)
        probs = torch.zeros(ids.shape, dtype=torch.float64)
        for image, captions in enumerate(tokens.tolist()):
            for slot, caption in enumerate(captions):
                words = [word for word in caption[1:] if word != PAD]
                for t, shares in enumerate(taught(int(image_ids[image]), words)):
                    for w, (word, prob) in enumerate(shares.items()):
                        ids[image, slot, t, w], probs[image, slot, t, w] = word, prob
        return ids, probs


def taught(image_id, words):
    """{word: probability} of each word; nothing where nothing is known."""
    known = [{END: 0.25, 4 + (image_id + t) % 2: 0.5 - 0.1 * t} for t in range(len(words))]
    return known if len(words) > 1 else [{} for _ in words]


LOSSES = {  # name: arguments of CrossEntropy
    "plain": {"doubly_stochastic": 0.0},
    "smoothing": {"doubly_stochastic": 0.0, "label_smoothing": 0.2},
    "soft_targets": {"doubly_stochastic": 0.0, "teacher": SoftTargets(), "teacher_share": SHARE},
    "doubly_stochastic": {"doubly_stochastic": 0.7},
    "all": {"doubly_stochastic": 0.7, "label_smoothing": 0.2, "teacher": SoftTargets(), "teacher_share": SHARE},
}


def losses_along(paper, batch, world, image, words, paths, losses, **how):
    """Of a caption along N paths of its image's own locations: log α [N, T], each word's loss [N, T], that of the whole
    caption's attention [N], and H[α] [N, T].

    Args:
        how: further arguments of `PaperCaptioner.follow`.
    """
    features = batch.images[image][list(world.locations[image])]
    followed = paper.follow(features, words, paths, start=START, **how)
    soft = None
    if "teacher" in losses:
        soft = [{word: SHARE * p for word, p in shares.items()} for shares in taught(10 + image, words)]
    of_words = word_losses(followed.log_probs, words, smoothing=losses.get("label_smoothing", 0.0), soft=soft)
    whole = losses["doubly_stochastic"] * unevenness(followed.alpha)
    return followed.log_locations, of_words, whole, followed.entropy()


MIXED = World(
    [(0, 1, 2), (0, 2), (1,), (1, 2)],
    [[[4, 5], [5], []], [[5, 5], None, None], [[4], [4], []], [[], None, None]],
)
