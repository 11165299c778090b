"""Compute the reward of a sampled caption for self-critical training (Rennie et al., CVPR 2017)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captioning.errors import CheckpointError, ConfigError
from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.text import tokenize

_ORDERS = 4  # of n-grams, as CIDEr-D and BLEU-4 have them


class Reward:
    """A weighted sum of CIDEr-D and the BLEU-4 of one caption, with the document frequencies of these references.

    Args:
        references: image id -> raw reference captions of the training split.
        cider_d, bleu_4: weights; CIDEr-D is on its usual scale (times 10), BLEU-4 a fraction.
        end: name of the word that ends a caption.
        count_end: whether it counts as a word, at the end of every reference and of the captions that wrote it:
            otherwise a sample earns by stopping in the middle of a phrase.
        saved: `state_dict` of an earlier run's reward: its document frequencies are taken over, and not counted anew,
            where they are of the very same reference tokens. Rewards are the same bit for bit.

    Raises:
        CheckpointError: `saved` is no such thing.
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
    ):
        if not (cider_d or bleu_4):
            raise ConfigError("a reward needs a weight: cider_d and bleu_4 are both 0")
        self.cider_d, self.bleu_4 = cider_d, bleu_4
        # A space inside, which no token has: a caption about "<end>" must not match the end of another.
        self._tail = [f" {end}"] if count_end else []
        tokens = {image_id: [tokenize(text) + self._tail for text in texts] for image_id, texts in references.items()}
        self._digest = _digest(tokens)
        known = None if saved is None else _known(saved, self._digest)
        self.taken_over = known is not None
        self._references = References(tokens, **({"words": known.words, "base": known.base} if known else {}))
        if known and len(self._references.words) != len(known.words):
            raise CheckpointError("no document frequencies of these references: words are missing")
        self._scorer = CiderD(self._references, frequencies=known)

    @property
    def frequencies(self) -> DocumentFrequencies:
        """Document frequencies of the references, ends counted as words where they count."""
        return self._scorer.frequencies

    def state_dict(self) -> dict[str, Any]:
        """The document frequencies as plain containers and arrays, and a digest of the reference tokens."""
        return {"references": self._digest, **self.frequencies.state_dict()}

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
            reward = reward + self.bleu_4 * bleu(bleu_counts(self._references, matches))[:, 3]
        return reward


def _known(saved: Mapping[str, Any], digest: str) -> DocumentFrequencies | None:
    """The saved document frequencies; None where they are of other references than these."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("references"), str):
        raise CheckpointError("no document frequencies: nothing says of which references")
    frequencies = DocumentFrequencies.from_state_dict(saved)
    if frequencies.n != _ORDERS:
        raise CheckpointError(f"document frequencies of n-grams up to {frequencies.n} cannot score up to {_ORDERS}")
    return frequencies if saved["references"] == digest else None


def _digest(tokens: Mapping[int, Sequence[Sequence[str]]]) -> str:
    """Of every word of every caption of every image, in their order: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for captions in tokens.values():
        # No token has a line end in it, so these part captions and images.
        text = "\n".join(" ".join(words) for words in captions) + "\r"
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
