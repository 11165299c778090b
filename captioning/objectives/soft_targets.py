"""Look up a teacher's soft targets for every word of the training captions, for knowledge distillation."""

import torch
from torch import Tensor, nn

FACTOR = 0x9E3779B97F4A7C15 - 2**64  # odd: multiplication by it permutes 64-bit numbers


class Teacher(nn.Module):
    """Looks up the teacher's distribution of each word of a batch's captions (Hinton et al. 2015; word-level, Kim and
    Rush 2016).

    Captions are known by a 64-bit number of their image and words, so a lookup waits for no device.

    Args:
        keys: [N] int64, `number_captions` of N captions, ascending.
        starts: [N + 1] int64, where the words of each begin among all M.
        ids, probs: [M, W], the W likeliest words and their probabilities.
    """

    def __init__(self, *, keys: Tensor, starts: Tensor, ids: Tensor, probs: Tensor):
        super().__init__()
        for name, values in {"keys": keys, "starts": starts, "ids": ids, "probs": probs}.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, image_ids: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """image_ids [B], tokens [B, K, 1 + T] -> ids and probabilities [B, K, T, W]; 0 where nothing is known."""
        keys = number_captions(image_ids, tokens)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)  # the last, where all are smaller
        step = torch.arange(tokens.shape[-1] - 1, device=tokens.device)
        row = self.starts[place][..., None] + step
        known = (self.keys[place] == keys)[..., None] & (row < self.starts[place + 1][..., None])
        row = row.where(known, 0)
        return self.ids[row].long(), self.probs[row] * known[..., None]

    def knows(self, image_ids: Tensor, tokens: Tensor) -> Tensor:
        """Whether it has soft targets of each caption: [B, K] bool."""
        return torch.isin(number_captions(image_ids, tokens), self.keys)


def number_captions(image_ids: Tensor, tokens: Tensor) -> Tensor:
    """One int64 a caption of image_ids [B] and tokens [B, K, 1 + T], the same however it is padded: [B, K]."""
    powers = torch.full(tokens.shape[-1:], FACTOR, dtype=torch.int64, device=tokens.device).cumprod(0)  # modulo 2⁶⁴
    mixed = (tokens[..., 1:] * powers[1:]).sum(-1) + image_ids[:, None] * powers[0]
    return mixed ^ (mixed >> 31)
