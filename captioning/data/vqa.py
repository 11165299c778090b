"""Read images with questions and answers from the easy-vqa package or VQA v2's JSON, and map answers to ids.

A record has the fields that a feature store needs (id, path, split), so images with questions use the same encoder and
the same store as images with captions.
"""

import importlib.util
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.data.parsing import entries, field, id_of, read_json, shown
from captioning.data.readers import missing_files
from captioning.errors import CheckpointError, DataError, must_be
from captioning.text import normalize

_COLORS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
_SHAPES = {"circle", "rectangle", "triangle"}
VAL_EVERY = 10  # easy-vqa has no validation split: every tenth training image is used for it
ANNOTATORS = 10
SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}


class Question(NamedTuple):
    """One question about an image.

    Attributes:
        question_id: id, unique in the data set.
        text: the question.
        answers: one answer per annotator; () if they are not published.
        answer_type: type of the answer, for the table of scores.
        question_type: type of the question, for the table of scores.
    """

    question_id: int
    text: str
    answers: tuple[str, ...]
    answer_type: str
    question_type: str


class Asked(NamedTuple):
    """One image with its questions.

    Attributes:
        image_id: id, unique in the data set.
        path: path of the image file.
        split: "train", "val" or "test".
        questions: its questions.
    """

    image_id: int
    path: Path
    split: str
    questions: tuple[Question, ...]


def read_easy_vqa(root: str | Path | None = None) -> list[Asked]:
    """Read the easy-vqa package (Victor Zhou, 2019): images with one drawn shape; 4 000 for training, 1 000 for test.

    The only answer counts as that of ten annotators who agree, so VQA's accuracy is 1 for this answer and 0 for all
    others. Every tenth training image is in the validation split. The ids of the test split follow those of the
    training split.

    Args:
        root: a folder with {train,test}/questions.json and {train,test}/images/; None for the folder in the package.

    Raises:
        DataError: the package is not installed, or a file is missing or has another form.
    """
    folder = _package_data() if root is None else Path(root)
    records: list[Asked] = []
    first = 0
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
        raise DataError("data=easy_vqa needs the package easy-vqa. Run: pip install easy-vqa")
    return Path(spec.submodule_search_locations[0], "data")


def _easy_questions(file: Path, *, first: int) -> dict[int, list[Question]]:
    """Read {image number: its questions} from [[question, answer, number], …]; question ids count from `first`."""
    content = read_json(file)
    asked: defaultdict[int, list[Question]] = defaultdict(list)
    if not isinstance(content, list):
        raise DataError(f"{file} must be a list of easy-vqa's questions, not {shown(content)}")
    for index, entry in enumerate(content):
        where = f"{file}[{index}]"
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str, int] or entry[2] < 0:
            raise DataError(f"{where} must be [question, answer, number of the image], not {entry!r:.60}")
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
    """Read VQA v2 (Goyal et al. 2017): official questions and annotations of COCO's images of 2014 and 2015.

    Args:
        root: folder of the data set.
        questions: pattern of the question files' paths, relative to root; {subset} is one of `subsets`.
        annotations: pattern of the annotation files' paths, relative to root.
        pictures: pattern of the images' paths, relative to root; `{pictures}` is the image folder of the subset
            (test2015 for test-dev2015 too).
        subsets: split -> official name; None for train2014, val2014 and test2015. A split is read if its questions and
            its image folder are there. Without annotations, its questions can be answered, but not used for training or
            scores.

    Raises:
        DataError: no split is there, or a file is inconsistent.
    """
    records: list[Asked] = []
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
            f"data.root={root} has no questions of VQA v2: add one or more of {wanted}, with its image folder (see "
            "docs/data.md in the repository)"
        )
    return _checked(root, records)


def _annotations(file: Path) -> dict[int, tuple[tuple[str, ...], str, str]]:
    """Read {question id: (answers, answer type, question type)}."""
    found: dict[int, tuple[tuple[str, ...], str, str]] = {}
    for where, entry in entries(read_json(file), "annotations", file):
        given = [field(each, "answer", str, where) for each in field(entry, "answers", list, where)]
        if not given:
            raise DataError(f"{where}: 'answers' must have at least one answer")
        answer_type, question_type = (field(entry, key, str, where) for key in ("answer_type", "question_type"))
        found[id_of(entry, "question_id", where)] = (tuple(given), answer_type, question_type)
    return found


def _official_questions(file: Path, known: Mapping | None, answers: Path) -> dict[int, list[Question]]:
    """Read {image id: its questions}, with answers if they are known."""
    asked: defaultdict[int, list[Question]] = defaultdict(list)
    for where, entry in entries(read_json(file), "questions", file):
        number = id_of(entry, "question_id", where)
        if known is not None and number not in known:
            raise DataError(f"{where}: question {number} is not in {answers}: use both files of one version")
        facts = ((), "", "") if known is None else known[number]
        text = field(entry, "question", str, where)
        asked[id_of(entry, "image_id", where)].append(Question(number, text, *facts))
    return asked


def _checked(root: str | Path, records: list[Asked]) -> list[Asked]:
    """Check that every image is on disk and that the ids of images and questions are unique; return the records."""
    if missing := missing_files(record.path for record in records):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{root}: images that are not on disk: {missing[0]}{more}; download them")
    questions = Counter(question.question_id for record in records for question in record.questions)
    pictures = Counter(record.image_id for record in records)
    for what, counts in (("question", questions), ("image", pictures)):
        if repeated := [number for number, count in counts.items() if count > 1]:
            raise DataError(f"{root}: {what} ids must be unique, also between splits, but {repeated[:5]} are repeated")
    return records


Targets = Callable[[Sequence[str]], Mapping[str, float]]


def annotators(answers: Sequence[str]) -> dict[str, float]:
    """Return each answer in normal form, with the share of the annotators who gave it."""
    counts = Counter(map(normalize, answers))
    return {answer: count / len(answers) for answer, count in counts.items()}


def most_frequent(answers: Sequence[str]) -> dict[str, float]:
    """Return {answer: 1.0} for the answer that most annotators gave, the earlier one of two; {} for no answers."""
    return {answer: 1.0 for answer, _ in Counter(map(normalize, answers)).most_common(1)}


class Answers:
    """The answers that a model chooses from, with ids 0 … N − 1. Stored in checkpoints as a list.

    Args:
        texts: the answers in normal form, each once.

    Raises:
        CheckpointError: there are no answers, or one is repeated.
    """

    def __init__(self, texts: Sequence[str]):
        self.texts = tuple(texts)
        self._ids = {text: index for index, text in enumerate(self.texts)}
        if not texts or len(self._ids) != len(self.texts):
            raise CheckpointError("the checkpoint's list 'answers' must have one or more answers, each only once")

    @classmethod
    def build(cls, questions: Iterable[Question], *, most: int) -> "Answers":
        """Build the list of the `most` most frequent answers.

        Args:
            questions: questions with answers. For each question, the answer that most annotators gave counts.
            most: number of answers.

        Raises:
            DataError: no question has an answer.
        """
        must_be("data.answers", most, least=1)
        counts = Counter(answer for question in questions for answer in most_frequent(question.answers))
        counts.pop("", None)  # answers of only punctuation and articles
        if not counts:
            raise DataError("split 'train' has no answers: add the annotations of the training split")
        return cls(sorted(counts, key=lambda answer: (-counts[answer], answer))[:most])

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, targets: Mapping[str, float]) -> dict[int, float]:
        """Return {id: share} for the known answers, with shares that add up to 1; {} if none is known."""
        known = {self._ids[text]: share for text, share in targets.items() if text in self._ids}
        return {index: share / sum(known.values()) for index, share in known.items()}

    def coverage(self, questions: Iterable[Question]) -> float:
        """Return the share of the questions whose most frequent answer is in the list; 1.0 for no questions."""
        found = [answer in self._ids for question in questions for answer in most_frequent(question.answers)]
        return sum(found) / len(found) if found else 1.0

    def state_dict(self) -> list[str]:
        """Return all answers in the order of their ids, for a checkpoint."""
        return list(self.texts)


def questions_of(records: Iterable[Asked]) -> list[Question]:
    """Return all questions of the records, in order."""
    return [question for record in records for question in record.questions]


def prior_answers(training: Iterable[Question], asked: Iterable[Question]) -> tuple[dict[int, str], dict[int, str]]:
    """Guess answers without seeing the image, in two ways.

    Args:
        training: questions of the training split.
        asked: the questions to answer.

    Returns:
        Two dictionaries {question id: answer}. The first has the most frequent answer of the training split. The second
        has the most frequent answer to the same question there, or the first guess if it was never asked.

    Raises:
        DataError: the training split has no answers.
    """
    everything: Counter[str] = Counter()
    by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in training:
        for answer in most_frequent(question.answers):
            everything[answer] += 1
            by_text[question.text][answer] += 1
    if not everything:
        raise DataError("split 'train' has no answers: add the annotations of the training split")
    best = everything.most_common(1)[0][0]
    asked = list(asked)
    same = {q.question_id: by_text[q.text].most_common(1)[0][0] if q.text in by_text else best for q in asked}
    return {question.question_id: best for question in asked}, same
