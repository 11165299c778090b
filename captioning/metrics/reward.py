"""What a sampled caption is worth in self-critical training (Rennie et al., CVPR 2017)."""

from collections.abc import Mapping, Sequence

import numpy as np

from captioning.errors import ConfigError
from captioning.metrics.bleu import bleu, counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.tokenizer import tokenize


class Reward:
    """A weighted sum of CIDEr-D and the BLEU-4 of one caption, with the document frequencies of these references.

    Args:
        references: image id -> raw reference captions of the training split.
        cider_d, bleu_4: weights; CIDEr-D is on its usual scale (times 10), BLEU-4 a fraction.
        end: name of the word that ends a caption.
        count_end: whether it counts as a word, at the end of every reference and of the captions that wrote it:
            otherwise a sample earns by stopping in the middle of a phrase.
    """

    def __init__(
        self,
        references: Mapping[int, Sequence[str]],
        *,
        cider_d: float = 1.0,
        bleu_4: float = 0.0,
        end: str = "<end>",
        count_end: bool = True,
    ):
        if not (cider_d or bleu_4):
            raise ConfigError("a reward needs a weight: cider_d and bleu_4 are both 0")
        self.cider_d, self.bleu_4 = cider_d, bleu_4
        # A space inside, which no token has: a caption about "<end>" must not match the end of another.
        self._tail = [f" {end}"] if count_end else []
        self._references = References(
            {image_id: [tokenize(text) + self._tail for text in texts] for image_id, texts in references.items()}
        )
        self._scorer = CiderD(self._references)

    @property
    def frequencies(self) -> DocumentFrequencies:
        """Document frequencies of the references, ends counted as words where they count."""
        return self._scorer.frequencies

    def __call__(
        self, image_ids: Sequence[int], captions: Sequence[Sequence[str]], ended: Sequence[bool]
    ) -> np.ndarray:
        """[N] one reward a caption.

        Args:
            image_ids: the picture that each caption is of; a picture may have many captions.
            captions: word tokens, without the end token.
            ended: whether the caption wrote its end, rather than being cut at the greatest length.
        """
        rows = zip(captions, ended, strict=True)
        matches = self._references.match(image_ids, [[*words, *self._tail] if done else words for words, done in rows])
        reward = self.cider_d * self._scorer.score(matches) if self.cider_d else 0.0
        if self.bleu_4:
            reward = reward + self.bleu_4 * bleu(counts(self._references, matches))[:, 3]
        return reward
