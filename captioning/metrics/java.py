"""Run the original tokenizer, METEOR and SPICE: Java programs of pycocoevalcap, for machines that have Java.

Java programs that come with pycocoevalcap, for machines that have Java.

Nothing is downloaded here. METEOR is Denkowski and Lavie's (WMT 2014), version 1.5 with its settings for English;
SPICE is Anderson et al.'s (ECCV 2016).
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from captioning.errors import ToolError
from captioning.text import PUNCTUATION

TOKENIZER, METEOR = "tokenizer/stanford-corenlp-3.4.1.jar", "meteor/meteor-1.5.jar"
MODELS = ("spice/lib/stanford-corenlp-3.6.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar")
SOURCE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
# METEOR's parameters for English, and the weights of exact, stem, synonym and paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def command(*arguments: str, wanted_by: str) -> list[str]:
    """A Java command line; a ToolError where there is no Java."""
    java = shutil.which("java")
    if java is None:
        raise ToolError(f"{wanted_by} needs Java, and there is none: install a Java runtime (8 or newer)")
    return [java, *arguments]


def jar(name: str) -> Path:
    package = importlib.util.find_spec("pycocoevalcap")
    path = Path(package.submodule_search_locations[0], name) if package else Path(name)
    if not path.is_file():
        raise ToolError(f"{path} is not there: pip install pycocoevalcap brings it")
    return path


def tokenize_all(captions: Sequence[str]) -> list[list[str]]:
    """Tokens of each caption, by the tokenizer that coco-caption runs.

    Line ends of every kind become spaces: the program reads a caption a line, and one more line than captions would
    shift all that follow. A caption's last token may depend on the caption after it; so it is there.
    """
    arguments = ["-cp", str(jar(TOKENIZER)), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", errors="replace", newline="") as file:
        file.write("\n".join(" ".join(caption.split()) for caption in captions))
        file.flush()
        run = command("-Dfile.encoding=UTF-8", *arguments, file.name, wanted_by="the Java tokenizer")
        done = subprocess.run(run, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8").split("\n")[: len(captions)]
    if done.returncode or len(lines) != len(captions):
        raise ToolError(f"the Java tokenizer failed: {_last_line(done.stderr.decode(errors='replace'))}")
    return [[word for word in line.strip(" \r").split(" ") if word and word not in PUNCTUATION] for line in lines]


def meteor_counts(references: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    """[N, 23] METEOR's statistics of each caption against its references (token strings); they add up."""
    start = command("-jar", "-Xmx2G", str(jar(METEOR)), "-", "-", "-stdio", "-l", "en", "-norm", wanted_by="METEOR")
    lines = []
    for group, caption in zip(references, captions, strict=True):
        # Three bars part the fields of a line, so none may stand in a text.
        fields = ["SCORE", *group, caption]
        lines.append(" ||| ".join(" ".join(text.replace("|||", "").split()) for text in fields) + "\n")
    done = subprocess.run(
        start, input="".join(lines), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    try:
        counts = np.array([line.split() for line in done.stdout.splitlines()], float).reshape(len(lines), 23)
    except ValueError as error:
        reason = _last_line(done.stderr) or _last_line(done.stdout) or f"exit status {done.returncode}"
        raise ToolError(f"METEOR's Java program broke off: {reason}") from error
    # One chunk that is the whole caption and the whole reference counts as none, in the sum of many captions too.
    whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(axis=1)
    counts[whole, 20] = 0
    return counts


def meteor(counts: np.ndarray) -> np.ndarray:
    """METEOR of statistics […, 23]: of one caption, or of many when theirs were added up (eqs. 1-4 of the paper)."""
    lengths, function_words = counts[..., 0:2], counts[..., 2:4]  # of the caption and of the reference
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)  # [kind of match, content | function, side]
    chunks, matched = counts[..., 20], counts[..., 21:23]
    weighed = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]  # […, 4, 2]
    totals = DELTA * (lengths - function_words) + (1 - DELTA) * function_words
    shares = _ratio(np.einsum("...ks,k->...s", weighed, _WEIGHTS), totals)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * _ratio(chunks, matched.mean(-1)) ** BETA)


def spice(references: Mapping[int, Sequence[str]], captions: Mapping[int, str]) -> np.ndarray:
    """SPICE's F of each image, in the order of `references` (token strings)."""
    command(wanted_by="SPICE")
    package = jar(TOKENIZER).parents[1]
    if missing := [package / name for name in MODELS if not (package / name).is_file()]:
        raise ToolError(
            f"SPICE needs {' and '.join(path.name for path in missing)} (400 MB) in {missing[0].parent}: "
            f"unpack them from {SOURCE}"
        )
    from pycocoevalcap.spice.spice import Spice

    # The scorer sorts its keys, and image ids may be numbers and texts.
    truths = {row: list(texts) for row, texts in enumerate(references.values())}
    texts = {row: [captions[image_id]] for row, image_id in enumerate(references)}
    try:
        _, scores = Spice().compute_score(truths, texts)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise ToolError(f"SPICE's Java program broke off: {error}") from error
    # The official scorer hands them back in the order of sorted ids, whatever the order that they came in.
    found = {image_id: values["All"]["f"] for image_id, values in zip(sorted(truths), scores, strict=True)}
    return np.array([found[image_id] for image_id in truths])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
