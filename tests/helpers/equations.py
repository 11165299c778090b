"""Captioners of every kind written from the papers' equations, as plain as they can be: nothing is the package's own.

One caption of one image, one word after the other, in float64; vectors only, no batches. The parameters are a model's,
by their names, so that gradients can be compared as well.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Drop = Callable[[Tensor, float], Tensor]


def no_dropout(numbers: Tensor, share: float) -> Tensor:
    return numbers


@dataclass
class Equations:
    """What a model is made of, in words.

    conditioning: of "initial", "first", "every". shares: of dropout, by place. choose: α -> the weights of the context
    and of the sentinel, one-hot for hard attention. part: the name that "conditioning" has for each of its parts.
    """

    parameters: Mapping[str, Tensor]
    cell: str = "lstm"
    layers: int = 1
    recurrence: str = "look_first"
    attention: bool = True
    scorer: str = "additive"
    conditioning: Sequence[str] = ("initial",)
    readout: str = "deep"
    adapted: bool = False
    frequencies: int = 0
    gate: bool = True
    attention_name: str = "decoder.attention"
    drop: Drop = no_dropout
    shares: Mapping[str, float] = field(default_factory=dict)
    choose: Callable[[Tensor], Tensor] = lambda alpha: alpha

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def affine(self, name: str, numbers: Tensor) -> Tensor:
        """W x + b, or W x where there is no b."""
        product = self[f"{name}.weight"] @ numbers
        bias = self.parameters.get(f"{name}.bias")
        return product if bias is None else product + bias

    def dropped(self, place: str, numbers: Tensor) -> Tensor:
        return self.drop(numbers, self.shares.get(place, 0.0))

    # The image ------------------------------------------------------------------------------------------------------

    def locations(self, features: Tensor) -> list[Tensor]:
        """Each location's vector, with its code and at the model's width."""
        side, found = math.isqrt(len(features)), []
        for place, vector in enumerate(features):
            if self.frequencies:
                codes = []
                for at in (place // side, place % side):  # row, then column
                    turns = [math.pi * (at + 0.5) / side * 2**power for power in range(self.frequencies)]
                    codes += [math.sin(turn) for turn in turns] + [math.cos(turn) for turn in turns]
                vector = torch.cat((vector, torch.tensor(codes, dtype=vector.dtype)))
            if self.adapted:
                vector = self.dropped("adapter", self.affine("adapter.1", vector).clamp(min=0))
            found.append(vector)
        return found

    def part(self, kind: str) -> str:
        """The name of a conditioning's parameters."""
        if len(self.conditioning) == 1:
            return "conditioning"
        return f"conditioning.parts.{list(self.conditioning).index(kind)}"

    # One cell -------------------------------------------------------------------------------------------------------

    def advance(self, name: str, known: Tensor, fed: Tensor | None, hidden: list, cell: list) -> tuple[list, list]:
        """All layers of one cell: what enters, and h and c of each layer before -> after."""
        new_hidden, new_cell = [], []
        below = known
        for layer, (h, c) in enumerate(zip(hidden, cell, strict=True)):
            rnn = f"{name}.rnn."
            entering = self[f"{rnn}weight_ih_l{layer}"] @ below + self[f"{rnn}bias_ih_l{layer}"]
            if layer == 0 and fed is not None and len(fed):
                entering = entering + self[f"{name}.feedback.weight"] @ fed
            recurrent = self[f"{rnn}weight_hh_l{layer}"] @ h + self[f"{rnn}bias_hh_l{layer}"]
            x, u = (numbers.view(-1, len(h)).unbind() for numbers in (entering, recurrent))
            if self.cell == "rnn":
                h = (x[0] + u[0]).tanh()
            elif self.cell == "gru":
                reset, update = (x[0] + u[0]).sigmoid(), (x[1] + u[1]).sigmoid()
                h = (1 - update) * (x[2] + reset * u[2]).tanh() + update * h
            else:
                i, f, g, o = (a + b for a, b in zip(x, u, strict=True))
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            new_hidden.append(h)
            new_cell.append(c)
            below = self.dropped("layers", h) if len(hidden) > 1 else h
        return new_hidden, new_cell

    # Attention ------------------------------------------------------------------------------------------------------

    def energy(self, key: Tensor, query: Tensor) -> Tensor:
        scorer = f"{self.attention_name}.scorer"
        if self.scorer == "additive":
            return self[f"{scorer}.score.weight"][0] @ (key + self.affine(f"{scorer}.query", query)).tanh()
        return self.affine(f"{scorer}.query", query) @ key / math.sqrt(len(key))

    def look(self, query: Tensor, places: list[Tensor], sentinel: tuple[Tensor, Tensor] | None = None):
        """The context, and α over the locations and, last, the sentinel (vector, key)."""
        keys = [self.affine(f"{self.attention_name}.scorer.key", place) for place in places]
        values = list(places)
        if sentinel is not None:
            values.append(sentinel[0])
            keys.append(sentinel[1])
        energies = torch.stack([self.energy(key, query) for key in keys])
        shares = (energies - energies.max().detach()).exp()
        alpha = shares / shares.sum()
        weights = self.choose(alpha)
        return sum(weight * value for weight, value in zip(weights, values, strict=True)), alpha

    # One step -------------------------------------------------------------------------------------------------------

    def step(self, known: Tensor, hidden: list, cell: list, places: list[Tensor] | None):
        """-> h, c, the context that the readout sees, α. places: None where nothing is looked at: a context of 0."""
        width = self.width

        def seen(query, sentinel=None):
            if places is None or not self.attention:
                return known.new_zeros(width), known.new_zeros(0)
            return self.look(query, places, sentinel)

        name = "decoder.recurrence"
        if self.recurrence in ("look_first", "look_with_word"):
            query = hidden[-1]
            if self.recurrence == "look_with_word" and self.attention:
                query = query + self[f"{name}.word.weight"] @ known
            context, alpha = seen(query)
            if self.attention and self.gate:
                context = (self[f"{name}.gate.weight"][0] @ query + self[f"{name}.gate.bias"][0]).sigmoid() * context
            return *self.advance(f"{name}.cell", known, context, hidden, cell), context, alpha
        if self.recurrence == "look_after":
            hidden, cell = self.advance(f"{name}.cell", known, None, hidden, cell)
            context, alpha = seen(hidden[-1])
            return hidden, cell, context, alpha
        if self.recurrence == "adaptive":
            gate = (
                self.affine(f"{name}.sentinel_input", known) + self[f"{name}.sentinel_state.weight"] @ hidden[-1]
            ).sigmoid()
            hidden, cell = self.advance(f"{name}.cell", known, None, hidden, cell)
            vector = gate * (cell[-1] if self.cell == "lstm" else hidden[-1]).tanh()
            context, alpha = seen(hidden[-1], (vector, self[f"{name}.sentinel_key.weight"] @ vector))
            return hidden, cell, context, alpha
        assert self.recurrence == "up_down"
        low, low_cell = self.advance(f"{name}.attention_cell", known, hidden[-1], hidden[:1], cell[:1])
        context, alpha = seen(low[0])
        high, high_cell = self.advance(f"{name}.language_cell", low[0], context, hidden[1:], cell[1:])
        return low + high, low_cell + high_cell, known.new_zeros(0), alpha

    def read(self, word: Tensor, top: Tensor, context: Tensor) -> Tensor:
        name = "decoder.readout"
        if self.readout == "linear":
            total = self.dropped("readout", torch.cat((top, context)))
        elif self.readout == "sum":
            total = self.dropped("readout", top + context)
        else:
            total = word + self.affine(f"{name}.hidden", self.dropped("readout", top))
            if len(context):
                total = total + self[f"{name}.context.weight"] @ context
            total = self.dropped("readout", total.tanh())
        return self.affine(f"{name}.output", total)

    # A question -----------------------------------------------------------------------------------------------------

    def answer(self, features: Tensor, words: Sequence[int], glimpses: int):
        """Logits of the answers to one question, and α of each of the looks."""
        places = self.locations(features)
        size = self["cell.rnn.weight_hh_l0"].shape[1]
        hidden, cell = ([places[0].new_zeros(size) for _ in range(self.layers)] for _ in range(2))
        for word in words:
            vector = self.dropped("words", self["embedding.weight"][word])
            hidden, cell = self.advance("cell", vector, None, hidden, cell)
        query, context, alphas = hidden[-1], sum(places) / len(places), []
        for glimpse in range(glimpses if self.attention else 0):
            if glimpse:
                query = query + self[f"again.{glimpse - 1}.weight"] @ context
            self.attention_name = f"looks.{glimpse}"
            context, alpha = self.look(query, places)
            alphas.append(alpha)
        product = self.affine("readout.query", query).tanh() * self.affine("readout.seen", context).tanh()
        return self.affine("readout.output", self.dropped("readout", product)), alphas

    # A caption ------------------------------------------------------------------------------------------------------

    def begin(self, features: Tensor):
        """h and c of each layer before <start>, the locations, and what joins each word."""
        places = self.locations(features)
        self.width = len(places[0]) if self.attention else 0
        mean = sum(places) / len(places)
        cells = "decoder.recurrence." + ("language_cell" if self.recurrence == "up_down" else "cell")
        size = self[f"{cells}.rnn.weight_hh_l0"].shape[1]
        layers = self.layers + (self.recurrence == "up_down")
        hidden, cell = ([mean.new_zeros(size) for _ in range(layers)] for _ in range(2))
        if "initial" in self.conditioning:
            part = self.part("initial")
            shared = self.dropped("initial", self.affine(f"{part}.shared.0", mean).clamp(min=0))
            hidden = list(self.affine(f"{part}.hidden", shared).tanh().view(layers, size))
            if self.cell == "lstm":
                cell = list(self.affine(f"{part}.cell", shared).tanh().view(layers, size))
        every = mean.new_zeros(0)
        if "every" in self.conditioning:
            every = self.affine(f"{self.part('every')}.image", mean)
        if "first" in self.conditioning:
            image = self.affine(f"{self.part('first')}.image", mean)
            hidden, cell, _, _ = self.step(torch.cat((image, every)), hidden, cell, None)
        return hidden, cell, places, every

    def caption(self, features: Tensor, words: Sequence[int]):
        """Logits after each word that is read, α of each step, and h and c at the end.

        Args:
            features: [P, D] of the real locations.
            words: from <start> on.
        """
        hidden, cell, places, every = self.begin(features)
        logits, alphas = [], []
        for word in words:
            vector = self.dropped("words", self["decoder.embedding.weight"][word])
            hidden, cell, context, alpha = self.step(torch.cat((vector, every)), hidden, cell, places)
            logits.append(self.read(vector, hidden[-1], context))
            alphas.append(alpha)
        return logits, alphas, hidden, cell
