from captioning.data.readers.checks import missing_files as missing_files
from captioning.data.readers.coco import read_coco as read_coco
from captioning.data.readers.coco_json import read_coco_files as read_coco_files
from captioning.data.readers.csv_table import read_csv as read_csv
from captioning.data.readers.karpathy import read_karpathy as read_karpathy

__all__: list[str]
