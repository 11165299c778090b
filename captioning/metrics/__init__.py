"""Score captions and answers, given as strings: BLEU, ROUGE-L, METEOR, CIDEr-D, SPICE and VQA accuracy.

Importing this folder does not import torch.
"""

import lazy_loader

# Parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "reward": ["Reward"],
    "scores": ["Scorer"],
}
TOOLS = {
    "chair": ["AnnotatedObjects", "LOWER_IS_BETTER"],
    "grounding": ["MEASURES", "RIVALS", "ground_caption", "looked_at", "summarize"],
    "mentions": ["compile_phrases", "find_mentions"],
    "regions": ["overlaps"],
    "scores": ["Report", "name_ids", "score"],
    "table": ["ScoreTable", "from_csv", "to_csv"],
    "vqa": ["Truth", "vqa_accuracy"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
