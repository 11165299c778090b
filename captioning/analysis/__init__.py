"""Study a trained model: record activations, find units that follow a property, measure gradients; notebook tools."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": ["ActivationTable", "Reading", "batches", "read_captions", "tabulate"],
        "gradients": [
            "Course",
            "Flow",
            "Shares",
            "clipping_study",
            "gradient_flow",
            "lines",
            "plain_captioner",
            "state_gradients",
            "untrained_flows",
        ],
        "notebook": ["DataSet", "boxes_by_word", "caption_counts", "differing", "image_entries", "open_data", "ranked"],
        "probing": ["UnitCorrelation", "beyond_position", "correlate_units"],
        "python_labels": ["source_labels"],
        "text_activations": ["held_out", "tabulate_texts"],
        "word_properties": ["properties"],
    },
)
