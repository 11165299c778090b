"""Caption and score a split, compare results, and measure whether attention looks at the named objects."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
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
            "same_references",
        ],
        "decoding_label": ["decoding_name"],
        "grounding": ["BLIND", "caption_and_ground", "grounding_csv", "grounding_table"],
        "identity": ["ImageTexts", "Matched", "file_name", "match", "of_records", "pair", "read_id"],
        "results": [
            "describe_scores",
            "read_about",
            "read_fingerprint",
            "read_scores",
            "read_title",
            "title",
            "write_report",
            "write_server_file",
        ],
        "split_captions": ["sources_of", "write_captions"],
    },
)
