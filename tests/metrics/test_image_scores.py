"""CLIPScore, RefCLIPScore, PAC-S and RefPAC-S: their formulas, and how a scorer uses a model that sees the images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.metrics.image_scores import image_text_scores, with_references

D = 5  # width of the embeddings


def plain_cosine(a, b):
    """Compute a cosine as the definition does, with Python's own 64-bit numbers."""
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def plain_scores(image, caption, references, weight):
    """Hessel et al. (2021), section 3: w · max(cos, 0), and its harmonic mean with the best reference's cosine."""
    alone = weight * max(plain_cosine(caption, image), 0)
    nearest = max(max(plain_cosine(caption, reference), 0) for reference in references)
    return alone, 2 / (1 / alone + 1 / nearest) if alone > 0 and nearest > 0 else 0.0


vectors = st.lists(
    st.floats(-100, 100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=D, max_size=D
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(vectors, vectors, st.lists(vectors, min_size=1, max_size=4)), min_size=1, max_size=5),
    st.sampled_from([2.5, 2.0]),
)
def test_formulas_equal_a_plain_loop(images, weight):
    pictures, captions = (np.array([each[k] for each in images], dtype=np.float64) for k in (0, 1))
    owners = np.array([row for row, each in enumerate(images) for _ in each[2]])
    references = np.array([reference for each in images for reference in each[2]], dtype=np.float64)
    alone = image_text_scores(pictures, captions, weight=weight)
    both = with_references(alone, captions, references, owners)
    wanted = np.array([plain_scores(*each, weight) for each in images])
    np.testing.assert_allclose(np.stack([alone, both], axis=1), wanted, rtol=0, atol=1e-9)


def test_known_values():
    image, caption = np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])  # cosine 0.6
    alone = image_text_scores(image, caption, weight=2.5)
    assert alone == pytest.approx([1.5])
    references = np.array([[8.0, 6.0], [0.0, -1.0]])  # cosines 0.96 and -0.8
    assert with_references(alone, caption, references, np.array([0, 0])) == pytest.approx([2 * 1.5 * 0.96 / 2.46])
    assert image_text_scores(-image, caption, weight=2.5) == [0.0]
    assert with_references(np.zeros(1), caption, references, np.array([0, 0])) == [0.0]
    assert with_references(alone, caption, references[1:], np.array([0])) == [0.0]


def test_many_references_are_compared_in_parts(monkeypatch):
    random = np.random.default_rng(0)
    captions, references = random.normal(size=(7, D)), random.normal(size=(50, D))
    owners, alone = np.sort(np.concatenate([np.arange(7), random.integers(0, 7, 43)])), random.random(7)
    whole = with_references(alone, captions, references, owners)
    monkeypatch.setattr("captioning.metrics.image_scores._ROWS", 3)
    assert np.array_equal(with_references(alone, captions, references, owners), whole)
    assert (whole > 0).any()


def test_embeddings_of_16_bits_are_compared_in_64():
    random = np.random.default_rng(1)
    image, caption = (random.normal(size=(1, 512)).astype(np.float16) for _ in range(2))
    wide = image_text_scores(image.astype(np.float64), caption.astype(np.float64), weight=2.5)
    assert np.array_equal(image_text_scores(image, caption, weight=2.5), wide)
