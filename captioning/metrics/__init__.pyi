from captioning.metrics.chair import AnnotatedObjects as AnnotatedObjects
from captioning.metrics.chair import LOWER_IS_BETTER as LOWER_IS_BETTER
from captioning.metrics.grounding import MEASURES as MEASURES
from captioning.metrics.grounding import RIVALS as RIVALS
from captioning.metrics.grounding import ground_caption as ground_caption
from captioning.metrics.grounding import looked_at as looked_at
from captioning.metrics.grounding import summarize as summarize
from captioning.metrics.mentions import compile_phrases as compile_phrases
from captioning.metrics.mentions import find_mentions as find_mentions
from captioning.metrics.regions import overlaps as overlaps
from captioning.metrics.reward import Reward as Reward
from captioning.metrics.scores import Report as Report
from captioning.metrics.scores import Scorer as Scorer
from captioning.metrics.scores import name_ids as name_ids
from captioning.metrics.scores import score as score
from captioning.metrics.table import ScoreTable as ScoreTable
from captioning.metrics.table import from_csv as from_csv
from captioning.metrics.table import to_csv as to_csv
from captioning.metrics.vqa import Truth as Truth
from captioning.metrics.vqa import vqa_accuracy as vqa_accuracy

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
