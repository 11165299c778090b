from captioning.objectives.answer_cross_entropy import AnswerCrossEntropy as AnswerCrossEntropy
from captioning.objectives.cross_entropy import CrossEntropy as CrossEntropy
from captioning.objectives.cross_entropy import ScheduledSampling as ScheduledSampling
from captioning.objectives.loss import Loss as Loss
from captioning.objectives.reinforce import LeaveOneOut as LeaveOneOut
from captioning.objectives.reinforce import MovingAverage as MovingAverage
from captioning.objectives.reinforce import Reinforce as Reinforce
from captioning.objectives.self_critical import SelfCritical as SelfCritical
from captioning.objectives.self_critical import greedy as greedy
from captioning.objectives.self_critical import leave_one_out as leave_one_out
from captioning.objectives.soft_targets import Teacher as Teacher
from captioning.objectives.soft_targets import number_captions as number_captions
from captioning.objectives.truncated_backpropagation import TruncatedBackpropagation as TruncatedBackpropagation

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
