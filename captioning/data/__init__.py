"""Read data sets: records of images with captions or questions, image files, vocabularies and batches.

Neural networks are in `captioning.models`.
"""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
PARTS = {
    "corpus": ["read_texts"],
    "instances": ["read_instances"],
    "pictures": ["Transform"],
    "readers": [
        "read_auto",
        "read_coco",
        "read_coco_cn",
        "read_conceptual",
        "read_csv",
        "read_flickr_text",
        "read_folder",
        "read_json_lines",
        "read_karpathy",
        "read_multi30k",
        "read_nocaps",
        "read_parquet",
        "read_stair",
        "read_textcaps",
        "read_vizwiz",
    ],
    "scenes": ["read_scenes", "read_shapes", "truth"],
    "several_inputs": ["SeveralInputs"],
    "timm_transform": ["TimmTransform"],
    "vqa": ["annotators", "read_easy_vqa", "read_vqa_v2"],
}
TOOLS = {
    "augmentation": ["Augmentation", "make_augmentation"],
    "annotations": ["counted_annotations", "left_out_notice", "mark_of"],
    "caption_scripts": ["dictionary_option"],
    "checks": ["audit_records", "audit_table"],
    "corpus": ["Text", "Windows", "encode_texts", "only", "split_text"],
    "datasets": [
        "CaptionBatch",
        "CaptionDataset",
        "ImageDataset",
        "ImageSampler",
        "View",
        "collate",
        "collate_images",
        "may_be_mirrored",
        "stack_images",
        "tokenize_captions",
    ],
    "instances": ["COCO_WORDS", "Instances", "ListedCategories", "read_categories"],
    "lengths": ["cut_warning", "default_length"],
    "parsing": [
        "Faults",
        "Handling",
        "STRICT",
        "entries",
        "field",
        "id_of",
        "note",
        "parse_json",
        "read_json",
        "shown",
    ],
    "image_files": ["find_images", "FoundImages", "holds_image", "image_kind", "list_pictures", "SUFFIXES"],
    "pictures": ["Box", "CORNERS", "open_picture", "read_picture", "upright"],
    "places": [
        "CocoPictures",
        "Disk",
        "PICTURE_FOLDERS",
        "Places",
        "canonical",
        "caseless",
        "have_all",
        "own_folder",
        "unnested",
        "why_missing",
    ],
    "questions": ["NOTHING", "QuestionBatch", "QuestionDataset", "collate_questions", "encode_question"],
    "records": ["Record", "SPLITS", "select"],
    "readers": ["recognize_data"],
    "scenes": ["draw_scene"],
    "split_names": ["SPLIT_NAMES", "known_split", "split_named"],
    "tables": ["is_table", "names_of", "table_rows"],
    "vocabulary": ["Vocabulary"],
    "vqa": ["Answers", "most_frequent", "prior_answers", "questions_of"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
