"""The script that fits the calibration finds known constants, and confirms nouns by references and objects."""

import numpy as np
import pytest
from docs_scripts import load_script

from captioning.tags import LITE0_CALIBRATION, kind_of


@pytest.fixture(scope="module")
def script():
    return load_script("calibrate_tags")


def test_known_constants_are_found(script):
    random = np.random.default_rng(0)
    values = 1 / (1 + np.exp(-random.normal(0, 2, (4000, 3))))
    x = script.inputs(values, ["category", "food", "other"])
    constants = np.array([0.6, -0.5, 1.5, 0, -1, 0])
    y = random.random((4000, 3)) < 1 / (1 + np.exp(-x @ constants))
    found = script.fit(x.reshape(-1, 6), y.ravel(), np.ones(y.size))
    np.testing.assert_allclose(found, constants, atol=0.12)


def test_nouns_are_confirmed_by_references_and_objects(script):
    references = [
        [["two", "puppies", "at", "a", "bus", "stop"], ["an", "animal"]],
        [["a", "bird", "eats", "food"]],
        [["a", "room"]],
    ]
    photos = script.Photos("x", [None] * 3, references, [set(), set(), {"tv"}])
    nouns = ["dog", "bus", "owl", "popsicle", "monitor", "bird"]
    assert script.confirmed(photos, nouns).tolist() == [
        [True, False, False, False, False, False],
        [False, False, True, False, False, True],
        [False, False, False, False, True, False],
    ]
    assert script.in_photo(photos._replace(objects=None), ["dog", "bird"]).tolist() == [
        [True, False],
        [False, True],
        [False, False],
    ]


def test_the_table_of_reliability_by_hand(script):
    lines = script.reliability(np.array([0.72, 0.78, 0.95]), np.array([True, False, True]))
    assert "| 0.7–0.8 | 2 | 0.75 | 0.50 |" in lines and "| 0.9–1.0 | 1 | 0.95 | 1.00 |" in lines


def test_the_offsets_are_of_kinds_that_exist(script):
    assert set(LITE0_CALIBRATION.offsets) == set(script.KINDS)
    assert set(script.KINDS) <= {kind_of(noun) for noun in ("dog", "lake", "candy", "shirt")}
