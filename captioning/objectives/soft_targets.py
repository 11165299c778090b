"""Look up a teacher's soft targets for every word of the training captions, for knowledge distillation."""

import torch
from torch import Tensor, nn

FACTOR = 0x9E3779B97F4A7C15 - 2**64  # odd: multiplication by it permutes 64-bit numbers


class Teacher(nn.Module):
    """The teacher's distribution of each word of the training captions.

    This is word-level knowledge distillation (Hinton et al. 2015, Kim and Rush 2016). Captions are identified by a
    64-bit number computed from their image and words, so a lookup does not wait for a device.

    Args:
        keys: `number_captions` of the N captions, [N] int64, ascending.
        starts: Index of each caption's first word among all M words, [N + 1] int64.
        ids: The W most likely words, [M, W].
        probs: Their probabilities, [M, W].
    """

    keys: Tensor
    starts: Tensor
    ids: Tensor
    probs: Tensor

    def __init__(self, *, keys: Tensor, starts: Tensor, ids: Tensor, probs: Tensor):
        super().__init__()
        for name, values in {"keys": keys, "starts": starts, "ids": ids, "probs": probs}.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, image_ids: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Look up the distributions of all words of a batch.

        Args:
            image_ids: [B].
            tokens: [B, K, 1 + T].

        Returns:
            Ids and probabilities, [B, K, T, W] each; the probabilities of unknown words are 0.
        """
        keys = number_captions(image_ids, tokens)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)  # the last one if all are smaller
        step = torch.arange(tokens.shape[-1] - 1, device=tokens.device)
        row = self.starts[place][..., None] + step
        known = (self.keys[place] == keys)[..., None] & (row < self.starts[place + 1][..., None])
        row = row.where(known, 0)
        return self.ids[row].long(), self.probs[row] * known[..., None]

    def knows(self, image_ids: Tensor, tokens: Tensor) -> Tensor:
        """Return whether there are soft targets for each caption, [B, K] bool."""
        return torch.isin(number_captions(image_ids, tokens), self.keys)


def number_captions(image_ids: Tensor, tokens: Tensor) -> Tensor:
    """Compute one int64 per caption, which does not depend on its padding.

    Args:
        image_ids: [B].
        tokens: [B, K, 1 + T].

    Returns:
        Numbers [B, K].
    """
    powers = torch.full(tokens.shape[-1:], FACTOR, dtype=torch.int64, device=tokens.device).cumprod(0)  # modulo 2⁶⁴
    mixed = (tokens[..., 1:] * powers[1:]).sum(-1) + image_ids[:, None] * powers[0]
    return mixed ^ (mixed >> 31)
