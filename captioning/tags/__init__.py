"""Name the things in a photo: with an image classifier, or from the results of a detector."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["Calibration", "LITE0_CALIBRATION"],
        "linear_head": ["linear_head_of"],
        "noun_classes": ["all_nouns", "classes_of"],
        "nouns": [
            "HOMONYMS",
            "MORE_PEOPLE",
            "ImageNetNoun",
            "broader_than",
            "canonical_noun",
            "category_of",
            "coco_words",
            "forms",
            "imagenet_nouns",
            "kind_of",
            "plurals_of",
            "summed_nouns",
        ],
        "probe": ["PERSON_PROBE", "Probe", "person_probe"],
        "stand_ins": ["borrowable", "stand_ins_of"],
        "tag": ["Tag"],
        "tag_files": ["read_tags"],
        "tagger": ["Evidence", "Tagger", "load_tagger"],
    },
)
