"""Define the losses that training minimizes: an objective computes all terms of the loss of a model on a batch.

`CrossEntropy` and `SelfCritical` train captioners, `AnswerCrossEntropy` trains VQA models, `TruncatedBackpropagation`
trains language models. `Reinforce` adds the gradient of the locations that hard attention sampled. An objective is a
module, because checkpoints save its memory (a moving average, a count of batches). Its `of_task` names its task.
"""

import lazy_loader

# The parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "answer_cross_entropy": ["AnswerCrossEntropy"],
    "cross_entropy": ["CrossEntropy", "ScheduledSampling"],
    "reinforce": ["LeaveOneOut", "MovingAverage", "Reinforce"],
    "self_critical": ["SelfCritical", "greedy", "leave_one_out"],
    "truncated_backpropagation": ["TruncatedBackpropagation"],
}
TOOLS = {
    "loss": ["Loss"],
    "soft_targets": ["Teacher", "number_captions"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
