"""Score captions and answers given as strings by image id: BLEU, ROUGE, METEOR, CIDEr-D, SPICE, VQA accuracy.

Importing it loads no torch.
"""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
PARTS = {
    "reward": ["Reward"],
    "scores": ["Scorer"],
}
TOOLS = {
    "grounding": ["MEASURES", "ground_caption", "summarize"],
    "mentions": ["compile_phrases"],
    "regions": ["overlaps"],
    "scores": ["Report", "name_ids", "score"],
    "table": ["ScoreTable", "from_csv", "to_csv"],
    "vqa": ["Truth", "vqa_accuracy"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
