"""Use a trained model: captions, attention maps, likelihoods, answers and text out of a checkpoint."""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
PARTS = {
    "distillation": ["read_teacher"],
    "guidance": ["TagGuide"],
}
TOOLS = {
    "attribution": [
        "ATTENTION",
        "BLIND",
        "as_map",
        "check_maps",
        "gradient_times_input",
        "gradient_weighted_attention",
        "names_of_maps",
        "with_maps",
    ],
    "automatic_tags": ["choose_guide", "recommended_tags"],
    "caption": ["Caption", "TagWeights", "tag_notes"],
    "distillation": ["soft_targets_of", "write_soft_targets"],
    "ensemble": ["load_all"],
    "figures": ["check_drawable", "draw_figure", "endings", "save_caption_figure"],
    "generation": ["LENGTH_NORMALIZATION", "generate", "generate_texts", "get_search", "with_generator"],
    "language_model": [
        "LANGUAGE_MODEL",
        "LanguageModel",
        "build_model",
        "load_language_model",
        "make_language_model_metadata",
    ],
    "loading": ["load", "score_captions"],
    "predictor": ["Predictor"],
    "vqa": ["VQA", "Answer", "AnswerPredictor", "load_answerer", "make_answerer_metadata", "write_answers"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
