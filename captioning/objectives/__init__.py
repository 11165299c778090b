"""What training minimises. An objective is called with the model and a batch, and owns every part of the loss.

Two objectives for the words, CrossEntropy and SelfCritical, and AnswerCrossEntropy for answers; in each of them,
Reinforce makes the gradient of places that hard attention drew, where it drew any. Objectives are modules for the sake
of what they remember (a moving average, a count of batches), which travels in checkpoints. `of_kind` names the kind
of run (captioning.kinds) whose batches they take.
"""

from captioning.objectives.answer_cross_entropy import AnswerCrossEntropy
from captioning.objectives.cross_entropy import CrossEntropy, ScheduledSampling
from captioning.objectives.loss import Loss
from captioning.objectives.reinforce import LeaveOneOut, MovingAverage, Reinforce
from captioning.objectives.self_critical import SelfCritical, greedy, leave_one_out
from captioning.objectives.truncated_backpropagation import TruncatedBackpropagation

__all__ = [
    "AnswerCrossEntropy",
    "CrossEntropy",
    "LeaveOneOut",
    "Loss",
    "MovingAverage",
    "Reinforce",
    "ScheduledSampling",
    "SelfCritical",
    "TruncatedBackpropagation",
    "greedy",
    "leave_one_out",
]
