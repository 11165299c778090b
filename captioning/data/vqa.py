"""Read images with questions and answers from the easy-vqa package or VQA v2's JSON, and map answers to ids.

A record here has what a feature store wants of one (id, path, split), so that pictures go through the same encoder
into the same store as for captions.
"""

import importlib.util
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.data.parsing import entries, field, id_of, read_json
from captioning.data.readers import missing_files
from captioning.errors import CheckpointError, DataError, must_be
from captioning.text import normalize

_COLORS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
_SHAPES = {"circle", "rectangle", "triangle"}
VAL_EVERY = 10  # easy-vqa has no validation split: every tenth training picture becomes one
ANNOTATORS = 10
SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}


class Question(NamedTuple):
    """answers: as each annotator gave one, () where they are kept secret. The types are names for the report."""

    question_id: int
    text: str
    answers: tuple[str, ...]
    answer_type: str
    question_type: str


class Asked(NamedTuple):
    """One picture with its questions; split is train, val or test."""

    image_id: int
    path: Path
    split: str
    questions: tuple[Question, ...]


def read_easy_vqa(root: str | Path | None = None) -> list[Asked]:
    """The easy-vqa package (Victor Zhou, 2019): drawn shapes, one a picture; 4 000 pictures to train on, 1 000 to test.

    Its one answer stands for ten annotators of one mind, so that VQA's accuracy is 1 for it and 0 for any other.
    Every tenth training picture is for validation. Ids of the test split count on from those of the training split.

    Args:
        root: a folder with {train,test}/questions.json and {train,test}/images/; None: that in the package.

    Raises:
        DataError: the package is not installed, or a file is missing or not as expected.
    """
    folder = _package_data() if root is None else Path(root)
    records, first = [], 0
    for part in ("train", "test"):
        asked = _easy_questions(folder / part / "questions.json", first=sum(len(r.questions) for r in records))
        for number, questions in asked.items():
            split = part if part == "test" else "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"
            path = folder / part / "images" / f"{number}.png"
            records.append(Asked(first + number, path, split, tuple(questions)))
        first = 1 + max(asked, default=-1)
    return _checked(folder, records)


def _package_data() -> Path:
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("data=easy_vqa is a package that is not installed: pip install easy-vqa")
    return Path(spec.submodule_search_locations[0], "data")


def _easy_questions(file: Path, *, first: int) -> dict[int, list[Question]]:
    """{picture's number: its questions} of [[question, answer, number], …]; ids count from `first`."""
    content, asked = read_json(file), defaultdict(list)
    if not isinstance(content, list):
        raise DataError(f"{file}: easy-vqa's questions are a list, not {type(content).__name__}")
    for index, entry in enumerate(content):
        where = f"{file}[{index}]"
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str, int] or entry[2] < 0:
            raise DataError(f"{where}: wanted [question, answer, number of the picture], not {entry!r:.60}")
        text, answer, number = entry
        kind = "color" if answer in _COLORS else "shape" if answer in _SHAPES else "yes/no"
        beginning = " ".join(text.split()[:2])
        negated = " … not" if {"not", "no"} & set(text.split()[2:]) else ""
        question = Question(first + index, text, (answer,) * ANNOTATORS, kind, beginning + negated)
        asked[number].append(question)
    return asked


def read_vqa_v2(
    root: str | Path,
    *,
    questions: str = "v2_OpenEnded_mscoco_{subset}_questions.json",
    annotations: str = "v2_mscoco_{subset}_annotations.json",
    pictures: str = "{pictures}/COCO_{pictures}_{image_id:012d}.jpg",
    subsets: Mapping[str, str] | None = None,
) -> list[Asked]:
    """VQA v2 (Goyal et al. 2017): official questions and annotations over COCO's pictures of 2014 and 2015.

    Args:
        root: folder of the data set.
        questions, annotations, pictures: patterns of their paths, relative to root. {subset} is one of `subsets`,
            {pictures} its folder of pictures (test2015 for test-dev2015 too).
        subsets: split -> official name; None: train2014, val2014 and test2015. A split is there when its questions
            and its folder of pictures are; without annotations it can be answered, not scored or learnt from.

    Raises:
        DataError: nothing is there, or what is there is inconsistent.
    """
    records = []
    subsets = SUBSETS if subsets is None else subsets
    for split, subset in subsets.items():
        folder = subset.replace("-dev", "")
        file, answers = (Path(root, pattern.format(subset=subset)) for pattern in (questions, annotations))
        name = Path(root, pictures.format(pictures=folder, image_id=0)).parent
        if not file.is_file() or not name.is_dir():
            continue
        known = _annotations(answers) if answers.is_file() else None
        for image_id, asked in _official_questions(file, known, answers).items():
            path = Path(root, pictures.format(pictures=folder, image_id=image_id))
            records.append(Asked(image_id, path, split, tuple(asked)))
    if not records:
        wanted = ", ".join(questions.format(subset=subset) for subset in subsets.values())
        raise DataError(
            f"no questions of VQA v2 in {root}: wanted one or more of {wanted}, with its folder of pictures"
        )
    return _checked(root, records)


def _annotations(file: Path) -> dict[int, tuple[tuple[str, ...], str, str]]:
    """{question id: (answers, answer type, question type)}."""
    found = {}
    for where, entry in entries(read_json(file), "annotations", file):
        given = [field(each, "answer", str, where) for each in field(entry, "answers", list, where)]
        if not given:
            raise DataError(f"{where}: no annotator's answer")
        kinds = (field(entry, key, str, where) for key in ("answer_type", "question_type"))
        found[id_of(entry, "question_id", where)] = (tuple(given), *kinds)
    return found


def _official_questions(file: Path, known: Mapping | None, answers: Path) -> dict[int, list[Question]]:
    """{image id: its questions}, with their answers where these are known."""
    asked = defaultdict(list)
    for where, entry in entries(read_json(file), "questions", file):
        number = id_of(entry, "question_id", where)
        if known is not None and number not in known:
            raise DataError(f"{where}: question {number} is not in {answers}: take both files of one version")
        facts = ((), "", "") if known is None else known[number]
        text = field(entry, "question", str, where)
        asked[id_of(entry, "image_id", where)].append(Question(number, text, *facts))
    return asked


def _checked(root: str | Path, records: list[Asked]) -> list[Asked]:
    """The records, if every picture is on disk, and every picture and question has an id of its own."""
    if missing := missing_files(record.path for record in records):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{root}: pictures that are not on disk: {missing[0]}{more}; fetch them")
    questions = Counter(question.question_id for record in records for question in record.questions)
    pictures = Counter(record.image_id for record in records)
    for what, counts in (("question", questions), ("image", pictures)):
        if repeated := [number for number, count in counts.items() if count > 1]:
            raise DataError(f"{root}: {what} ids that are there twice, also between splits: {repeated[:5]}")
    return records


Targets = Callable[[Sequence[str]], Mapping[str, float]]


def annotators(answers: Sequence[str]) -> dict[str, float]:
    """Each answer with the share of the annotators who gave it, in normal form."""
    counts = Counter(map(normalize, answers))
    return {answer: count / len(answers) for answer, count in counts.items()}


def most_frequent(answers: Sequence[str]) -> dict[str, float]:
    """The answer that most annotators gave, alone; the earlier one of two. {} for no answers."""
    return {answer: 1.0 for answer, _ in Counter(map(normalize, answers)).most_common(1)}


class Answers:
    """The answers that a model chooses from, with ids 0 … N − 1; in a checkpoint a plain list.

    Args:
        texts: in normal form, each once.
    """

    def __init__(self, texts: Sequence[str]):
        self.texts = tuple(texts)
        self._ids = {text: index for index, text in enumerate(self.texts)}
        if not texts or len(self._ids) != len(self.texts):
            raise CheckpointError("answers must be one or more, and each only once")

    @classmethod
    def build(cls, questions: Iterable[Question], *, most: int) -> "Answers":
        """The `most` most frequent ones, of each question the answer that most annotators gave."""
        must_be("data.answers", most, least=1)
        counts = Counter(answer for question in questions for answer in most_frequent(question.answers))
        counts.pop("", None)  # of punctuation and articles alone
        if not counts:
            raise DataError("no training question has an answer: the training split needs its annotations")
        return cls(sorted(counts, key=lambda answer: (-counts[answer], answer))[:most])

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, targets: Mapping[str, float]) -> dict[int, float]:
        """{id: share}, of the known answers alone and adding up to 1; {} where none is known."""
        known = {self._ids[text]: share for text, share in targets.items() if text in self._ids}
        return {index: share / sum(known.values()) for index, share in known.items()}

    def coverage(self, questions: Iterable[Question]) -> float:
        """Share of the questions whose most frequent answer is among these; 1.0 for no questions."""
        found = [answer in self._ids for question in questions for answer in most_frequent(question.answers)]
        return sum(found) / len(found) if found else 1.0

    def state_dict(self) -> list[str]:
        """All texts in the order of their ids."""
        return list(self.texts)


def questions_of(records: Iterable[Asked]) -> list[Question]:
    """All questions of the records, in order."""
    return [question for record in records for question in record.questions]


def prior_answers(training: Iterable[Question], asked: Iterable[Question]) -> tuple[dict[int, str], dict[int, str]]:
    """What could be answered without a picture: {question id: answer} of two guesses.

    The training split's most frequent answer of all; and its most frequent one to the very same question, or the
    former where that was never asked.
    """
    everything, by_text = Counter(), defaultdict(Counter)
    for question in training:
        for answer in most_frequent(question.answers):
            everything[answer] += 1
            by_text[question.text][answer] += 1
    if not everything:
        raise DataError("there is no answer prior: the training split has no answers")
    best = everything.most_common(1)[0][0]
    asked = list(asked)
    same = {q.question_id: by_text[q.text].most_common(1)[0][0] if q.text in by_text else best for q in asked}
    return {question.question_id: best for question in asked}, same
