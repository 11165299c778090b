"""Read images with captions, one file per layout of a data set, and check that the image files exist.

Each reader returns the records of all splits, in the file's order of images. All readers check that each image id
belongs to one image and that every image with captions is on disk, and leave out images without captions. docs/data.md
says where to get each data set.

A reader stops at the first fault. If `faults` is given (by the audit), it collects the faults there, continues, and
returns everything that can be read, including blank captions, images without captions, and images that are not on disk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["missing_files"],
        "coco": ["read_coco"],
        "coco_cn": ["KINDS_OF_CAPTIONS", "read_coco_cn"],
        "coco_json": ["read_coco_files"],
        "conceptual": ["read_conceptual"],
        "csv_table": ["read_csv"],
        "flickr_text": ["read_flickr_text"],
        "folder": ["read_folder"],
        "json_lines": ["read_json_lines"],
        "karpathy": ["read_karpathy"],
        "multi30k": ["read_multi30k"],
        "parquet": ["read_parquet"],
        "recognize": ["read_auto", "recognize_data"],
        "nocaps": ["DOMAINS", "read_nocaps"],
        "stair": ["read_stair"],
        "textcaps": ["read_textcaps"],
        "vizwiz": ["read_vizwiz"],
        "webdataset": ["read_webdataset"],
    },
)
