"""CLIPScore, RefCLIPScore, PAC-S and RefPAC-S: their formulas, and how a scorer uses a model that sees the images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.errors import ConfigError, DataError
from captioning.evaluation import describe_scores
from captioning.metrics import Scorer, from_csv, to_csv
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


class Drawn:
    """An embedder of numbers drawn from the text or from the bytes of the file; it counts what it embeds."""

    def __init__(self, *, random=False, english_only=False):
        self.random, self.english_only, self.embedded, self.prepared = random, english_only, [], 0

    def prepare(self):
        self.prepared += 1

    def describe(self):
        return "drawn vectors"

    def embed_images(self, paths):
        return np.stack([self._vector(path.read_bytes()) for path in paths])

    def embed_texts(self, texts):
        self.embedded += texts
        return np.stack([self._vector(text.encode()) for text in texts])

    def _vector(self, content):
        return np.random.default_rng(list(content)).normal(size=D).astype(np.float32)


REFERENCES = {7: ["A dog.", "Two dogs run, fast!"], "b": ["a cat"], 3: ["a man on a horse", "a horse", "A dog."]}
CAPTIONS = {3: "a man", 7: "a dog runs", "b": "A cat sleeps."}


@pytest.fixture
def images(tmp_path):
    paths = {image_id: tmp_path / f"{image_id}.jpg" for image_id in ("b", 3, 7)}
    for image_id, path in paths.items():
        path.write_bytes(str(image_id).encode())
    return paths


def wanted_by(embedder, images, weight):
    """The scores of each image by a plain loop, with the prompt of both papers before each text."""

    def of(text):
        return embedder._vector(f"A photo depicts {text}".encode()).tolist()

    return {
        key: plain_scores(
            embedder._vector(images[key].read_bytes()).tolist(), of(CAPTIONS[key]), map(of, texts), weight
        )
        for key, texts in REFERENCES.items()
    }


def test_a_scorer_adds_the_scores_and_changes_no_other(images):
    clip, pac = Drawn(), Drawn()
    report = Scorer(clipscore=True, pac_s=True, clip=clip, pac=pac, bootstrap=20)(REFERENCES, CAPTIONS, images=images)
    plain = Scorer(bootstrap=20)(REFERENCES, CAPTIONS)
    added = ["CLIPScore", "RefCLIPScore", "PAC-S", "RefPAC-S"]
    assert list(report.scores) == [*plain.scores, *added]
    for name in plain.scores:
        assert report.scores[name] == plain.scores[name] and report.intervals[name] == plain.intervals[name]
        assert np.array_equal(report.table.values[name], plain.table.values[name])
    assert report.table.image_ids == list(REFERENCES)
    for (alone, both), weight in {("CLIPScore", "RefCLIPScore"): 2.5, ("PAC-S", "RefPAC-S"): 2.0}.items():
        wanted = wanted_by(clip, images, weight)
        assert any(first > 0 for first, _ in wanted.values())
        for column, name in enumerate((alone, both)):
            values = [each[column] for each in wanted.values()]
            np.testing.assert_allclose(report.table.values[name], values, rtol=0, atol=1e-9)
            assert report.scores[name] == pytest.approx(np.mean(values))
            low, high = report.intervals[name]
            assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert report.models == {"CLIPScore": "drawn vectors", "PAC-S": "drawn vectors"} and plain.models == {}
    assert not report.notes.keys() & set(added)


def test_scores_of_images_survive_their_table(images, tmp_path):
    table = Scorer(clipscore=True, clip=Drawn(), bootstrap=0)(REFERENCES, CAPTIONS, images=images).table
    file = tmp_path / "per_image.csv"
    file.write_text(to_csv(table), encoding="utf-8")
    read = from_csv(file)
    assert list(read.values) == list(table.values)
    np.testing.assert_allclose(read.values["RefCLIPScore"], table.values["RefCLIPScore"], rtol=1e-9)
    np.testing.assert_allclose(read.totals()["CLIPScore"], table.totals()["CLIPScore"], rtol=1e-9)


def test_scores_of_random_weights_say_so(images):
    report = Scorer(clipscore=True, clip=Drawn(random=True), bootstrap=0)(REFERENCES, CAPTIONS, images=images)
    assert report.notes["CLIPScore"] == report.notes["RefCLIPScore"] == "RANDOM WEIGHTS: this number means nothing"
    assert "RANDOM WEIGHTS" in describe_scores(report, {"data": "d", "split": "val", "decoding": "greedy"}, extra={})


def test_an_english_model_is_named_beside_scores_of_other_languages(images):
    for english_only, tokenizer, wanted in ((True, "unicode", True), (False, "unicode", False), (True, "ptb", False)):
        clip = Drawn(english_only=english_only)
        report = Scorer(clipscore=True, clip=clip, tokenizer=tokenizer, bootstrap=0)(
            REFERENCES, CAPTIONS, images=images
        )
        noted = {name for name, note in report.notes.items() if "knows only English" in note}
        assert noted == ({"CLIPScore", "RefCLIPScore"} if wanted else set())


def test_only_a_score_that_looks_needs_images(images):
    clip = Drawn()
    quiet, looking = Scorer(clip=clip, bootstrap=0), Scorer(clipscore=True, clip=clip, bootstrap=0)
    assert not quiet.looks_at_images and looking.looks_at_images
    assert quiet(REFERENCES, CAPTIONS).scores == quiet(REFERENCES, CAPTIONS, images=images).scores
    quiet.prepare({1: images[7].with_name("none.jpg")})
    assert clip.prepared == 0 and not clip.embedded
    looking.prepare(images)
    assert clip.prepared == 1 and not clip.embedded


def test_missing_images_are_one_error(images, tmp_path):
    scorer = Scorer(clipscore=True, clip=Drawn(), bootstrap=0)
    with pytest.raises(
        ConfigError, match=r"^metrics.clipscore=true looks at the images. Give their folder: images=FOLDER$"
    ):
        scorer(REFERENCES, CAPTIONS)
    with pytest.raises(DataError, match=r"1 of 3 images have none: image ids b. Give each image a file name"):
        scorer(REFERENCES, CAPTIONS, images={key: path for key, path in images.items() if key != "b"})
    for key in ("b", 7):
        images[key].unlink()
    for call in (lambda: scorer(REFERENCES, CAPTIONS, images=images), lambda: scorer.prepare(images)):
        with pytest.raises(
            DataError, match=r"metrics.clipscore=true needs the image files, but 2 of 3 files do not exist"
        ):
            call()
    with pytest.raises(ConfigError, match=r"metrics.pac_s=true needs a model: set metrics.pac._target_"):
        Scorer(pac_s=True, clip=Drawn())
