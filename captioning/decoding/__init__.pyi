from captioning.decoding.beam import beam_search as beam_search
from captioning.decoding.beam import diverse_beam_search as diverse_beam_search
from captioning.decoding.beam import greedy_search as greedy_search
from captioning.decoding.consensus import consensus_search as consensus_search
from captioning.decoding.constraints import MAX_LENGTH as MAX_LENGTH
from captioning.decoding.constraints import Rules as Rules
from captioning.decoding.constraints import WORD_RULES as WORD_RULES
from captioning.decoding.forced import forced_decoding as forced_decoding
from captioning.decoding.forced import score_tokens as score_tokens
from captioning.decoding.hypothesis import Hypothesis as Hypothesis
from captioning.decoding.hypothesis import device_of as device_of
from captioning.decoding.hypothesis import normalized as normalized
from captioning.decoding.phrase_rules import PhraseRules as PhraseRules
from captioning.decoding.sampling import sample as sample
from captioning.decoding.word_groups import WordGroup as WordGroup

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
