"""Search for captions: greedy, beam, diverse beam, consensus, sampling, and forced decoding.

The searches do not depend on a model. `step(token, state) -> (logits [B, K, V], state, glimpse)` scores the next word
for B images × K rows, and `state` has a method `select(index)`. All images are searched together, and their features
are not repeated for the beams. `glimpse` has `weights` [B, K, L] and may have `places` [B, K]. Every rule that changes
a search is an argument.
"""

import lazy_loader

# The parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "beam": ["beam_search", "diverse_beam_search", "greedy_search"],
    "consensus": ["consensus_search"],
    "sampling": ["sample"],
}
TOOLS = {
    "constraints": ["MAX_LENGTH", "Rules", "WORD_RULES"],
    "forced": ["forced_decoding", "score_tokens"],
    "hypothesis": ["Hypothesis", "device_of", "normalized"],
    "phrase_rules": ["PhraseRules"],
    "word_groups": ["WordGroup"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
