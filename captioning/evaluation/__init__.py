"""Caption and score a split, compare results, and measure whether attention looks at the named objects."""

import lazy_loader

# Parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "clip_encoder": ["ClipEncoder", "PacEncoder"],
}
TOOLS = {
    "caption_files": [
        "ReferenceFile",
        "image_ids",
        "read_for_server",
        "read_references",
        "read_results",
        "read_samples",
    ],
    "comparison": [
        "aligned",
        "compared",
        "describe_comparison",
        "differences",
        "matched_by",
        "read_tables",
        "same_models",
        "same_references",
        "same_tokenizers",
    ],
    "decoding_label": ["decoding_name"],
    "grounding": ["caption_and_ground", "grounding_csv", "grounding_table"],
    "group_comparison": [
        "ComparedGroup",
        "compare_groups",
        "describe_compared_groups",
        "with_groups",
        "write_compared_groups",
    ],
    "groups": ["FEWEST", "GroupScores", "describe_groups", "report_groups", "score_groups"],
    "identity": ["ImageTexts", "Matched", "file_name", "match", "of_records", "pair", "read_id"],
    "image_folder": ["find_scored_images"],
    "objects": ["read_objects"],
    "results": [
        "describe_scores",
        "read_about",
        "describe_tokens",
        "read_fingerprint",
        "read_tokenizer",
        "read_models",
        "read_scores",
        "read_title",
        "title",
        "write_report",
    ],
    "server_files": ["server_of", "write_server_file"],
    "split_captions": ["sources_of", "write_captions"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
