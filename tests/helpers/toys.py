"""The parts of small captioners, and the ids of special tokens."""

import itertools
from functools import partial

from captioning.models import (
    GRU,
    LSTM,
    RNN,
    Additive,
    DotProduct,
    EveryStep,
    FirstStep,
    HardAttention,
    InitialState,
    LookAfter,
    LookFirst,
    NoAttention,
    Several,
    SoftAttention,
    StraightThrough,
    UpDown,
)
from captioning.objectives import CrossEntropy, LeaveOneOut, Reinforce, ScheduledSampling, SelfCritical

PAD, START, END, UNKNOWN = range(4)


CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


INITIAL = partial(InitialState, dropout=0.0)  # else half of a toy's few units are often gone


CONDITIONINGS = {
    "initial_state": INITIAL,
    "first_step": FirstStep,
    "every_step": EveryStep,
    "initial_first": partial(Several, parts=(INITIAL, FirstStep)),
    "initial_every": partial(Several, parts=(INITIAL, EveryStep)),
    "first_every": partial(Several, parts=(FirstStep, EveryStep)),
}


ATTENTIONS = {
    "none": NoAttention,
    "soft": SoftAttention,
    "hard": HardAttention,
    "hard_gumbel": partial(HardAttention, draw=StraightThrough()),
}


SCORERS = {"additive": partial(Additive, width=5), "dot_product": partial(DotProduct, width=5)}


RECURRENCES = {
    "look_first": LookFirst,
    "look_with_word": partial(LookFirst, word=True),
    "look_after": LookAfter,
    "adaptive": partial(LookAfter, sentinel=True),
    "up_down": UpDown,
}


def length_reward(image_ids, captions):
    return [len(caption) * 0.1 + image * 0.01 for image, caption in zip(image_ids, captions, strict=True)]


OBJECTIVES = {
    "cross_entropy": CrossEntropy,
    "leave_one_out": lambda: CrossEntropy(location_loss=Reinforce(baseline=LeaveOneOut(), reward_to_go=True)),
    "scheduled_sampling": lambda: CrossEntropy(inputs=ScheduledSampling(increase=1.0, every=1, maximum=0.9)),
    "self_critical": partial(
        SelfCritical, length_reward, start=START, end=END, forbidden=(PAD, START, UNKNOWN), samples=3, max_length=6
    ),
}


LOOKS = [(attention, "look_first") for attention in ATTENTIONS] + [("none", "up_down"), ("none", "look_with_word")]


LOOKS += itertools.product(
    [name for name in ATTENTIONS if name != "none"], [n for n in RECURRENCES if n != "look_first"]
)
