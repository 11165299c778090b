from captioning.inference.attribution import ATTENTION as ATTENTION
from captioning.inference.attribution import BLIND as BLIND
from captioning.inference.attribution import as_map as as_map
from captioning.inference.attribution import check_maps as check_maps
from captioning.inference.attribution import gradient_times_input as gradient_times_input
from captioning.inference.attribution import gradient_weighted_attention as gradient_weighted_attention
from captioning.inference.attribution import names_of_maps as names_of_maps
from captioning.inference.attribution import with_maps as with_maps
from captioning.inference.automatic_tags import choose_guide as choose_guide
from captioning.inference.automatic_tags import recommended_tags as recommended_tags
from captioning.inference.caption import Caption as Caption
from captioning.inference.caption import TagWeights as TagWeights
from captioning.inference.caption import tag_notes as tag_notes
from captioning.inference.distillation import read_teacher as read_teacher
from captioning.inference.distillation import soft_targets_of as soft_targets_of
from captioning.inference.distillation import write_soft_targets as write_soft_targets
from captioning.inference.ensemble import load_all as load_all
from captioning.inference.figures import check_drawable as check_drawable
from captioning.inference.figures import draw_figure as draw_figure
from captioning.inference.figures import endings as endings
from captioning.inference.figures import save_caption_figure as save_caption_figure
from captioning.inference.generation import LENGTH_NORMALIZATION as LENGTH_NORMALIZATION
from captioning.inference.generation import generate as generate
from captioning.inference.generation import generate_texts as generate_texts
from captioning.inference.generation import get_search as get_search
from captioning.inference.generation import with_generator as with_generator
from captioning.inference.guidance import TagGuide as TagGuide
from captioning.inference.language_model import LANGUAGE_MODEL as LANGUAGE_MODEL
from captioning.inference.language_model import LanguageModel as LanguageModel
from captioning.inference.language_model import build_model as build_model
from captioning.inference.language_model import load_language_model as load_language_model
from captioning.inference.language_model import make_language_model_metadata as make_language_model_metadata
from captioning.inference.loading import load as load
from captioning.inference.loading import score_captions as score_captions
from captioning.inference.predictor import Predictor as Predictor
from captioning.inference.vqa import Answer as Answer
from captioning.inference.vqa import AnswerPredictor as AnswerPredictor
from captioning.inference.vqa import VQA as VQA
from captioning.inference.vqa import load_answerer as load_answerer
from captioning.inference.vqa import make_answerer_metadata as make_answerer_metadata
from captioning.inference.vqa import write_answers as write_answers

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
