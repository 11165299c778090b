"""Compute the reward of sampled captions for self-critical training (Rennie et al., CVPR 2017)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captioning.errors import CheckpointError, ConfigError
from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.text import Tokenizer, make_tokenizer

_ORDERS = 4  # highest order of n-grams, as in CIDEr-D and BLEU-4


class Reward:
    """A reward: the weighted sum of the CIDEr-D and BLEU-4 of single captions.

    Document frequencies are those of the references.

    Args:
        references: image id -> raw reference captions of the training split.
        cider_d: weight of CIDEr-D, which has its usual scale (times 10).
        bleu_4: weight of BLEU-4, which is a fraction.
        end: the token that ends a caption.
        count_end: whether this token counts as a word, at the end of every reference and of the captions that wrote it.
            Otherwise a sample could gain by stopping in the middle of a phrase.
        saved: `state_dict` of an earlier run's reward. Its document frequencies are used if they were counted on
            exactly the same reference tokens; the rewards are the same bit for bit.
        tokenizer: splits the references into words, as those of the captions; None: the default tokenizer.

    Attributes:
        taken_over: whether the document frequencies of `saved` are used.

    Raises:
        ConfigError: both weights are 0.
        CheckpointError: `saved` is damaged.
    """

    def __init__(
        self,
        references: Mapping[int, Sequence[str]],
        *,
        cider_d: float = 1.0,
        bleu_4: float = 0.0,
        end: str = "<end>",
        count_end: bool = True,
        saved: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | None = None,
    ):
        if not (cider_d or bleu_4):
            raise ConfigError("reward.cider_d and reward.bleu_4 are both 0: set at least one of them above 0")
        self.cider_d, self.bleu_4 = cider_d, bleu_4
        # The leading space keeps this token different from a word "<end>" in a caption, because no token has a space.
        self._tail = [f" {end}"] if count_end else []
        split = tokenizer or make_tokenizer("ptb")
        tokens = {image_id: [split(text) + self._tail for text in texts] for image_id, texts in references.items()}
        self._digest = _digest(tokens)
        known = None if saved is None else _known(saved, self._digest)
        self.taken_over = known is not None
        words, base = (known.words, known.base) if known else (None, None)
        self._references = References(tokens, words=words, base=base)
        if known and len(self._references.words) != len(known.words):
            raise CheckpointError(_damaged("words are missing"))
        self._scorer = CiderD(self._references, frequencies=known)

    @property
    def frequencies(self) -> DocumentFrequencies:
        """The document frequencies of the references; they include the end token if `count_end`."""
        return self._scorer.frequencies

    def state_dict(self) -> dict[str, Any]:
        """Return the document frequencies as plain containers and arrays, with a digest of the reference tokens."""
        return {"references": self._digest, **self.frequencies.state_dict()}

    def __call__(
        self, image_ids: Sequence[int], captions: Sequence[Sequence[str]], ended: Sequence[bool]
    ) -> np.ndarray:
        """Compute the rewards of N captions.

        Args:
            image_ids: the image of each caption; an image may have many captions.
            captions: words of each caption, without the end token.
            ended: whether each caption wrote the end token, instead of being cut at the maximal length.

        Returns:
            [N] rewards.

        Raises:
            DataError: an image has no references.
        """
        rows = zip(captions, ended, strict=True)
        matches = self._references.match(image_ids, [[*words, *self._tail] if done else words for words, done in rows])
        reward = self.cider_d * self._scorer.score(matches) if self.cider_d else np.zeros(len(captions))
        if self.bleu_4:
            reward = reward + self.bleu_4 * bleu(bleu_counts(self._references, matches))[:, 3]
        return reward


def _known(saved: Mapping[str, Any], digest: str) -> DocumentFrequencies | None:
    """Return the saved document frequencies; None if they are of other references."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("references"), str):
        raise CheckpointError(_damaged("the digest of their references is missing"))
    frequencies = DocumentFrequencies.from_state_dict(saved)
    if frequencies.n != _ORDERS:
        raise CheckpointError(_damaged(f"n-grams have orders up to {frequencies.n} instead of {_ORDERS}"))
    return frequencies if saved["references"] == digest else None


def _damaged(what: str) -> str:
    return f"the saved document `frequencies` are damaged ({what}): use another checkpoint"


def _digest(tokens: Mapping[int, Sequence[Sequence[str]]]) -> str:
    """Return a digest of all words of all captions of all images, in order: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for captions in tokens.values():
        # No token contains a line break, so line breaks can separate captions and images.
        text = "\n".join(" ".join(words) for words in captions) + "\r"
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
