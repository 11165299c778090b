from captioning.tags.calibration import Calibration as Calibration
from captioning.tags.calibration import LITE0_CALIBRATION as LITE0_CALIBRATION
from captioning.tags.linear_head import linear_head_of as linear_head_of
from captioning.tags.noun_classes import all_nouns as all_nouns
from captioning.tags.noun_classes import classes_of as classes_of
from captioning.tags.nouns import ImageNetNoun as ImageNetNoun
from captioning.tags.nouns import broader_than as broader_than
from captioning.tags.nouns import canonical_noun as canonical_noun
from captioning.tags.nouns import category_of as category_of
from captioning.tags.nouns import coco_words as coco_words
from captioning.tags.nouns import forms as forms
from captioning.tags.nouns import imagenet_nouns as imagenet_nouns
from captioning.tags.nouns import kind_of as kind_of
from captioning.tags.nouns import plurals_of as plurals_of
from captioning.tags.nouns import summed_nouns as summed_nouns
from captioning.tags.probe import PERSON_PROBE as PERSON_PROBE
from captioning.tags.probe import Probe as Probe
from captioning.tags.probe import person_probe as person_probe
from captioning.tags.stand_ins import borrowable as borrowable
from captioning.tags.stand_ins import stand_ins_of as stand_ins_of
from captioning.tags.tag import Tag as Tag
from captioning.tags.tag_files import read_tags as read_tags
from captioning.tags.tagger import Evidence as Evidence
from captioning.tags.tagger import Tagger as Tagger
from captioning.tags.tagger import load_tagger as load_tagger

__all__: list[str]
