from captioning.checkpoints.model_card import make_card as make_card
from captioning.checkpoints.read import FORMAT as FORMAT
from captioning.checkpoints.read import IMAGE_CAPTIONING as IMAGE_CAPTIONING
from captioning.checkpoints.read import check_shapes as check_shapes
from captioning.checkpoints.read import find_checkpoint as find_checkpoint
from captioning.checkpoints.read import load_state as load_state
from captioning.checkpoints.read import read_checkpoint as read_checkpoint
from captioning.checkpoints.read import without_memory as without_memory
from captioning.checkpoints.rebuild import encoder_metadata as encoder_metadata
from captioning.checkpoints.rebuild import grid_of as grid_of
from captioning.checkpoints.rebuild import looks_at_regions as looks_at_regions
from captioning.checkpoints.rebuild import make_metadata as make_metadata
from captioning.checkpoints.rebuild import named_file as named_file
from captioning.checkpoints.rebuild import pick_device as pick_device
from captioning.checkpoints.rebuild import rebuild_encoder as rebuild_encoder
from captioning.checkpoints.rebuild import rebuild_model as rebuild_model
from captioning.checkpoints.resume import same_answers as same_answers
from captioning.checkpoints.resume import same_encoder as same_encoder
from captioning.checkpoints.resume import same_images as same_images
from captioning.checkpoints.resume import same_words as same_words
from captioning.checkpoints.resume import take_encoder as take_encoder
from captioning.checkpoints.safetensors_format import DTYPES as DTYPES
from captioning.checkpoints.safetensors_format import METADATA as METADATA
from captioning.checkpoints.safetensors_format import WEIGHTS as WEIGHTS
from captioning.checkpoints.safetensors_format import write_exported as write_exported

__all__: list[str]
