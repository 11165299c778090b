from captioning.evaluation.caption_files import ReferenceFile as ReferenceFile
from captioning.evaluation.caption_files import image_ids as image_ids
from captioning.evaluation.caption_files import read_for_server as read_for_server
from captioning.evaluation.caption_files import read_references as read_references
from captioning.evaluation.caption_files import read_results as read_results
from captioning.evaluation.caption_files import read_samples as read_samples
from captioning.evaluation.clip_encoder import ClipEncoder as ClipEncoder
from captioning.evaluation.clip_encoder import PacEncoder as PacEncoder
from captioning.evaluation.comparison import aligned as aligned
from captioning.evaluation.comparison import compared as compared
from captioning.evaluation.comparison import describe_comparison as describe_comparison
from captioning.evaluation.comparison import differences as differences
from captioning.evaluation.comparison import matched_by as matched_by
from captioning.evaluation.comparison import read_tables as read_tables
from captioning.evaluation.comparison import same_models as same_models
from captioning.evaluation.comparison import same_references as same_references
from captioning.evaluation.decoding_label import decoding_name as decoding_name
from captioning.evaluation.grounding import BLIND as BLIND
from captioning.evaluation.grounding import caption_and_ground as caption_and_ground
from captioning.evaluation.grounding import grounding_csv as grounding_csv
from captioning.evaluation.grounding import grounding_table as grounding_table
from captioning.evaluation.identity import ImageTexts as ImageTexts
from captioning.evaluation.identity import Matched as Matched
from captioning.evaluation.identity import file_name as file_name
from captioning.evaluation.identity import match as match
from captioning.evaluation.identity import of_records as of_records
from captioning.evaluation.identity import pair as pair
from captioning.evaluation.identity import read_id as read_id
from captioning.evaluation.image_folder import find_scored_images as find_scored_images
from captioning.evaluation.results import describe_scores as describe_scores
from captioning.evaluation.results import read_about as read_about
from captioning.evaluation.results import read_fingerprint as read_fingerprint
from captioning.evaluation.results import read_models as read_models
from captioning.evaluation.results import read_scores as read_scores
from captioning.evaluation.results import read_title as read_title
from captioning.evaluation.results import title as title
from captioning.evaluation.results import write_report as write_report
from captioning.evaluation.results import write_server_file as write_server_file
from captioning.evaluation.split_captions import sources_of as sources_of
from captioning.evaluation.split_captions import write_captions as write_captions

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
