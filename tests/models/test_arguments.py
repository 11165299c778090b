"""Test the arguments of models: the papers' values as defaults, and errors for values out of range."""

import inspect
from functools import partial

import pytest
from toys import ATTENTIONS, CELLS, RECURRENCES

from captioning.errors import ConfigError
from captioning.models import (
    Additive,
    Coordinates,
    DeepReadout,
    DotProduct,
    EveryStep,
    HardAttention,
    InitialState,
    LinearReadout,
    LookFirst,
    Several,
    SumReadout,
    build_answerer,
    build_captioner,
)


def default(part, name):
    return inspect.signature(part).parameters[name].default


def test_values_where_none_is_given():
    for part in (DeepReadout, LinearReadout, SumReadout, InitialState, build_captioner, build_answerer):
        assert default(part, "dropout") == 0.5
    for part in (Additive, DotProduct, build_captioner):
        assert default(part, "width") == 512
    assert default(LookFirst, "gate") is True and default(LookFirst, "word") is False
    for part in (*CELLS.values(), *(RECURRENCES[name] for name in ("look_first", "look_after", "up_down"))):
        assert default(part, "layers") == 1 and default(part, "dropout") == 0.0
    assert default(build_captioner, "word_dropout") == 0.0 and default(build_captioner, "embedding_size") == 512
    assert default(HardAttention, "decode") == "most_likely"
    sizes = {"embedding_size": 300, "readout_width": 1024, "glimpses": 1, "layers": 1, "pad": 0}
    assert {name: default(build_answerer, name) for name in sizes} == sizes


CAPTIONER = partial(build_captioner, feature_size=6, grid=True, vocabulary_size=9, width=4, embedding_size=3)
ANSWERER = partial(
    build_answerer, feature_size=6, grid=True, vocabulary_size=9, answers=3, width=4, embedding_size=3, readout_width=4
)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (CAPTIONER, {"width": 0}, r"model\.width"),
        (CAPTIONER, {"embedding_size": 0}, r"model\.embedding_size"),
        (CAPTIONER, {"layers": 0}, r"model\.layers"),
        (CAPTIONER, {"layers": 65}, r"model\.layers"),
        (CAPTIONER, {"dropout": 1.0}, r"model\.dropout"),
        (CAPTIONER, {"dropout": -0.1}, r"model\.dropout"),
        (CAPTIONER, {"word_dropout": 1.0}, r"model\.word_dropout"),
        (CAPTIONER, {"word_dropout": -0.1}, r"model\.word_dropout"),
        (CAPTIONER, {"feature_width": 0}, r"model\.feature_width"),
        (CAPTIONER, {"scorer": partial(Additive, width=0)}, r"model\.scorer\.width"),
        (CAPTIONER, {"scorer": partial(DotProduct, width=0)}, r"model\.scorer\.width"),
        (CAPTIONER, {"conditioning": partial(InitialState, dropout=1.0)}, r"model\.conditioning\.dropout"),
        (CAPTIONER, {"conditioning": partial(InitialState, dropout=-0.1)}, r"model\.conditioning\.dropout"),
        (CAPTIONER, {"conditioning": partial(Several, parts=(EveryStep, EveryStep))}, "of different kinds"),
        (CAPTIONER, {"readout": partial(DeepReadout, dropout=1.0)}, r"model\.readout\.dropout"),
        (CAPTIONER, {"readout": SumReadout, "attention": ATTENTIONS["none"]}, "there is no context"),
        (CAPTIONER, {"positions": Coordinates, "regions": True}, "a detector's regions"),
        (ANSWERER, {"width": 0}, r"model\.width"),
        (ANSWERER, {"embedding_size": 0}, r"model\.embedding_size"),
        (ANSWERER, {"readout_width": 0}, r"model\.readout_width"),
        (ANSWERER, {"layers": 0}, r"model\.layers"),
        (ANSWERER, {"glimpses": 0}, r"model\.glimpses"),
        (ANSWERER, {"dropout": 1.0}, r"model\.dropout"),
        (ANSWERER, {"dropout": -0.1}, r"model\.dropout"),
    ],
)
def test_values_that_cannot_be_are_named(build, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


def test_values_at_the_limits_are_taken():
    CAPTIONER(width=1, embedding_size=1, layers=2, dropout=0.0, word_dropout=0.0, feature_width=1)
    CAPTIONER(dropout=0.99, word_dropout=0.99, scorer=partial(Additive, width=1))
    ANSWERER(width=1, embedding_size=1, readout_width=1, glimpses=1, dropout=0.0)
