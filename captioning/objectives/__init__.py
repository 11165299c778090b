"""What training minimizes: an objective takes the model and a batch, and owns every term of the loss.

`CrossEntropy` and `SelfCritical` learn captions, `AnswerCrossEntropy` answers, `TruncatedBackpropagation` running text.
`Reinforce` adds the gradient of the locations that hard attention drew. An objective is a module, because what it
remembers (a moving average, a count of batches) is saved in checkpoints; its `of_task` names the task it is for.
"""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
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
