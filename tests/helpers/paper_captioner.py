"""A captioner written from the papers' equations: what the package's models and objectives are compared with.

Plain torch in float64, one caption of one image at a time, one word after the other. It takes a model's parameters by
their names and none of its code. N paths of locations go through a caption at once, as rows.

Xu et al. 2015, "Show, Attend and Tell": additive attention (section 3.1.2), LSTM (eqs. 1-3), deep output (eq. 7), the
gate β (section 4.2.1), hard attention (section 4.1). Vinyals et al. 2015, "Show and Tell": the image as the first
input.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Followed(NamedTuple):
    """A caption of T words along N paths of locations.

    log_probs: log p(v | words before, path), [N, T, V]. alpha: [N, T, L] over the image's L locations.
    log_locations: log α of each step's location on the path, [N, T]; None where α_t was looked at as a whole.
    """

    log_probs: Tensor
    alpha: Tensor
    log_locations: Tensor | None

    def entropy(self) -> Tensor:
        """H[α_t] = −Σ_i α_ti log α_ti: [N, T]."""
        return -(self.alpha * self.alpha.log()).sum(-1)

    def of(self, words: Sequence[int]) -> Tensor:
        """log p of each word of a caption, [N, T]."""
        return torch.stack([self.log_probs[:, t, word] for t, word in enumerate(words)], 1)


Drop = Callable[[str, int, Tensor], Tensor]


class PaperCaptioner:
    """Parameters of a model with an LSTM, additive attention before it, its gate, and the deep output layer.

    Args:
        model: whose parameters are taken, so that gradients reach them.
        drop: (name of a layer, step, its numbers) -> these numbers behind dropout; the step is −1 before the words.
    """

    def __init__(self, model: torch.nn.Module, drop: Drop = lambda name, t, numbers: numbers):
        self.parameters, self.drop = dict(model.named_parameters()), drop

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """h and c before <start>, [H] each, of an image with features [L, D]."""
        mean = sum(features) / len(features)
        if "conditioning.image.weight" in self.parameters:  # Show and Tell: x_{-1} = W_I v, from zeros; nothing is seen
            size = self["decoder.recurrence.gate.weight"].shape[1]
            image = self["conditioning.image.weight"] @ mean + self["conditioning.image.bias"]
            zeros = image.new_zeros(1, size)
            hidden, cell = self.lstm(image, features.new_zeros(1, features.shape[1]), zeros, zeros)
            return hidden[0], cell[0]
        shared = (self["conditioning.shared.0.weight"] @ mean + self["conditioning.shared.0.bias"]).clamp(min=0)
        shared = self.drop("start", -1, shared)
        return tuple(
            torch.tanh(self[f"conditioning.{part}.weight"] @ shared + self[f"conditioning.{part}.bias"])
            for part in ("hidden", "cell")
        )

    def lstm(self, word: Tensor, seen: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """i, f, o = σ(…), g = tanh(…); c = f ∘ c + i ∘ g, h = o ∘ tanh(c). word [E] or [N, E], the others [N, …]."""
        rnn = "decoder.recurrence.cell.rnn."
        sums = word @ self[rnn + "weight_ih_l0"].T + self[rnn + "bias_ih_l0"]
        sums = sums + hidden @ self[rnn + "weight_hh_l0"].T + self[rnn + "bias_hh_l0"]
        sums = sums + seen @ self["decoder.recurrence.cell.feedback.weight"].T
        size = hidden.shape[1]
        i, f, g, o = (sums[:, part * size : (part + 1) * size] for part in range(4))
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def attend(self, hidden: Tensor, features: Tensor) -> Tensor:
        """α = softmax(e), e_i = u · tanh(W_a a_i + W_h h + b): [N, H] -> [N, L]."""
        scorer = "decoder.attention.scorer."
        query = hidden @ self[scorer + "query.weight"].T
        energies = []
        for location in features:
            key = self[scorer + "key.weight"] @ location + self[scorer + "key.bias"]
            energies.append(torch.tanh(key + query) @ self[scorer + "score.weight"][0])
        energies = torch.stack(energies, 1).exp()
        return energies / energies.sum(1, keepdim=True)

    def step(self, word: int | Tensor, hidden, cell, look: Callable[[Tensor], Tensor], features: Tensor, t: int):
        """One step: -> logits [N, V], h, c, α [N, L]. `look` picks from α the weights [N, L] of the context."""
        embedded = self.drop("word", t, self["decoder.embedding.weight"][word].expand(len(hidden), -1))
        alpha = self.attend(hidden, features)
        gate = torch.sigmoid(hidden @ self["decoder.recurrence.gate.weight"][0] + self["decoder.recurrence.gate.bias"])
        context = gate[:, None] * (look(alpha) @ features)
        hidden, cell = self.lstm(embedded, context, hidden, cell)
        read = "decoder.readout."
        total = embedded + self.drop("hidden", t, hidden) @ self[read + "hidden.weight"].T + self[read + "hidden.bias"]
        total = self.drop("deep", t, torch.tanh(total + context @ self[read + "context.weight"].T))
        return total @ self[read + "output.weight"].T + self[read + "output.bias"], hidden, cell, alpha

    def follow(
        self,
        features: Tensor,
        words: Sequence[int],
        paths: Tensor | None = None,
        *,
        start: int,
        forbidden: Sequence[int] = (),
        inputs: Sequence[int] | None = None,
        weigh: Callable[[int, Tensor, Tensor], Tensor] = lambda t, alpha, located: located,
    ) -> Followed:
        """A caption along paths of locations.

        Args:
            features: [L, D] of an image's real locations.
            words: of the caption, <end> included where it is written.
            paths: [N, ≥ T] locations, or None for soft attention, z_t = Σ_i α_ti a_i, which has one path.
            forbidden: words of probability 0; those of the others are normalized.
            inputs: the words that enter; by default <start> and the caption's own.
            weigh: (t, α_t, the path's location as one of L numbers) -> the weights of the context, [N, L].
        """
        hidden, cell = (part.expand(1 if paths is None else len(paths), -1) for part in self.start(features))
        inputs, log_probs, alphas, locations = inputs or [start, *words[:-1]], [], [], []
        for t, before in enumerate(inputs):

            def look(alpha, t=t):
                return alpha if paths is None else weigh(t, alpha, torch.eye(len(features)).double()[paths[:, t]])

            logits, hidden, cell, alpha = self.step(before, hidden, cell, look, features, t)
            allowed = torch.ones(logits.shape[-1], dtype=torch.bool)
            allowed[list(forbidden)] = False
            log_probs.append(logits - (logits.exp() * allowed).sum(-1, keepdim=True).log())
            alphas.append(alpha)
            if paths is not None:
                locations.append(alpha[torch.arange(len(paths)), paths[:, t]].log())
        locations = None if paths is None else torch.stack(locations, 1)
        return Followed(torch.stack(log_probs, 1), torch.stack(alphas, 1), locations)

    def greedy(self, features: Tensor, *, start: int, end: int, forbidden: Sequence[int], length: int, hard: bool):
        """The caption of the likeliest word at each step, with the likeliest location of hard attention: a list."""
        hidden, cell = (part[None] for part in self.start(features))
        words = []
        while len(words) < length and end not in words:

            def look(alpha):
                return torch.eye(len(features), dtype=alpha.dtype)[alpha.argmax(1)] if hard else alpha

            before = words[-1] if words else start
            logits, hidden, cell, _ = self.step(before, hidden, cell, look, features, len(words))
            logits = logits[0].tolist()
            words.append(max((v for v in range(len(logits)) if v not in forbidden), key=lambda v: logits[v]))
        return words


def word_losses(
    log_probs: Tensor, words: Sequence[int], *, smoothing: float = 0.0, soft: Sequence[dict[int, float]] | None = None
) -> Tensor:
    """−Σ_v q(v) log p(v) of each word: [N, T, V] -> [N, T].

    q = (1 − Σ_w s_w) ((1 − ε) [v = y] + ε / V) + Σ_w s_w [v = w], with a teacher's shares s of each word as a dict.
    """
    vocabulary, losses = log_probs.shape[-1], []
    for t, word in enumerate(words):
        shares = soft[t] if soft else {}
        left = 1 - sum(shares.values())
        q = [left * smoothing / vocabulary + shares.get(v, 0.0) for v in range(vocabulary)]
        q[word] += left * (1 - smoothing)
        losses.append(-sum(q[v] * log_probs[:, t, v] for v in range(vocabulary)))
    return torch.stack(losses, 1)


def unevenness(alpha: Tensor) -> Tensor:
    """Σ_i (1 − Σ_t α_ti)², Show, Attend and Tell eq. 14: [N, T, L] -> [N]."""
    return ((1 - alpha.sum(1)) ** 2).sum(1)
