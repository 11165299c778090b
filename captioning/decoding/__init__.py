"""Greedy, beam, diverse beam and consensus search and sampling as functions of `step` and `state`; they know no model.

`step(token, state) -> (logits [B, K, V], state, glimpse)` scores the next word for B images × K rows, and `state` has
`select(index)`. Images are searched together; their features are never repeated for the beams. `glimpse` has
`weights` [B, K, P] and may have `places` [B, K]. No rule is hidden: what changes the search is an argument.
"""

from captioning.decoding.beam import beam_search, diverse_beam_search, greedy_search
from captioning.decoding.consensus import consensus_search
from captioning.decoding.constraints import WORD_RULES, Rules
from captioning.decoding.forced import forced_decoding, score_tokens
from captioning.decoding.hypothesis import Hypothesis, device_of, normalized
from captioning.decoding.sampling import sample

__all__ = [
    "WORD_RULES",
    "Hypothesis",
    "Rules",
    "beam_search",
    "consensus_search",
    "device_of",
    "diverse_beam_search",
    "follow",
    "greedy_search",
    "normalized",
    "sample",
    "score_tokens",
]
