from captioning.data.readers.checks import missing_files as missing_files
from captioning.data.readers.coco import read_coco as read_coco
from captioning.data.readers.coco_cn import KINDS_OF_CAPTIONS as KINDS_OF_CAPTIONS
from captioning.data.readers.coco_cn import read_coco_cn as read_coco_cn
from captioning.data.readers.coco_json import read_coco_files as read_coco_files
from captioning.data.readers.conceptual import read_conceptual as read_conceptual
from captioning.data.readers.csv_table import read_csv as read_csv
from captioning.data.readers.flickr_text import read_flickr_text as read_flickr_text
from captioning.data.readers.folder import read_folder as read_folder
from captioning.data.readers.json_lines import read_json_lines as read_json_lines
from captioning.data.readers.karpathy import read_karpathy as read_karpathy
from captioning.data.readers.multi30k import read_multi30k as read_multi30k
from captioning.data.readers.nocaps import DOMAINS as DOMAINS
from captioning.data.readers.nocaps import read_nocaps as read_nocaps
from captioning.data.readers.parquet import read_parquet as read_parquet
from captioning.data.readers.recognize import read_auto as read_auto
from captioning.data.readers.recognize import recognize_data as recognize_data
from captioning.data.readers.stair import read_stair as read_stair
from captioning.data.readers.textcaps import read_textcaps as read_textcaps
from captioning.data.readers.vizwiz import read_vizwiz as read_vizwiz
from captioning.data.readers.webdataset import read_webdataset as read_webdataset

__all__: list[str]
