"""Run the original tokenizer, METEOR and SPICE: Java programs of pycocoevalcap, for machines that have Java.

Nothing is downloaded here. METEOR is Denkowski and Lavie's (WMT 2014), version 1.5 with its settings for English;
SPICE is Anderson et al.'s (ECCV 2016).
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning.errors import ToolError
from captioning.text import PUNCTUATION

TOKENIZER, METEOR = "tokenizer/stanford-corenlp-3.4.1.jar", "meteor/meteor-1.5.jar"
MODELS = ("spice/lib/stanford-corenlp-3.6.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar")
SOURCE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
# METEOR's parameters for English, and its weights for exact, stem, synonym and paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def command(*arguments: str, wanted_by: str) -> list[str]:
    """Return a Java command line.

    Args:
        arguments: arguments of the command.
        wanted_by: name of the program, for the error message.

    Raises:
        ToolError: there is no Java.
    """
    java = shutil.which("java")
    if java is None:
        raise ToolError(
            f"{wanted_by} needs Java, but `java` was not found: install a Java runtime (version 8 or newer)"
        )
    return [java, *arguments]


def jar(name: str) -> Path:
    """Return the path of a file of pycocoevalcap.

    Raises:
        ToolError: pycocoevalcap is not installed, or the file is missing.
    """
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise ToolError(
            "METEOR, SPICE and metrics.tokenizer=java need a Java runtime and the package pycocoevalcap. "
            "Run: pip install 'captioning[java]'"
        )
    path = Path(package.submodule_search_locations[0], name)
    if not path.is_file():
        raise ToolError(f"{path} is missing. Run: pip install --force-reinstall pycocoevalcap")
    return path


def tokenize_all(captions: Sequence[str]) -> list[list[str]]:
    """Tokenize captions with the tokenizer that coco-caption runs.

    Line breaks of every kind become spaces: the program reads one caption per line, and an extra line would shift all
    captions after it. The last token of a caption may depend on the next caption, as in coco-caption.

    Raises:
        ToolError: there is no Java, or the program failed.
    """
    arguments = ["-cp", str(jar(TOKENIZER)), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", errors="replace", newline="") as file:
        file.write("\n".join(" ".join(caption.split()) for caption in captions))
        file.flush()
        run = command("-Dfile.encoding=UTF-8", *arguments, file.name, wanted_by="the Java tokenizer")
        done = subprocess.run(run, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8").split("\n")[: len(captions)]
    if done.returncode or len(lines) != len(captions):
        reason = _last_line(done.stderr.decode(errors="replace"))
        raise ToolError(f"the Java tokenizer failed ({reason}): check Java, or set metrics.tokenizer=ptb")
    return [[word for word in line.strip(" \r").split(" ") if word and word not in PUNCTUATION] for line in lines]


def meteor_counts(references: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    """Compute METEOR's statistics of captions; the statistics of several captions can be added.

    Args:
        references: token strings of the references of each caption.
        captions: token string of each of the N captions.

    Returns:
        [N, 23] statistics.

    Raises:
        ToolError: there is no Java, or the program failed.
    """
    start = command("-jar", "-Xmx2G", str(jar(METEOR)), "-", "-", "-stdio", "-l", "en", "-norm", wanted_by="METEOR")
    lines = []
    for group, caption in zip(references, captions, strict=True):
        # Three bars separate the fields of a line, so they must not occur in a text.
        fields = ["SCORE", *group, caption]
        lines.append(" ||| ".join(" ".join(text.replace("|||", "").split()) for text in fields) + "\n")
    done = subprocess.run(
        start, input="".join(lines), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    try:
        counts = np.array([line.split() for line in done.stdout.splitlines()], float).reshape(len(lines), 23)
    except ValueError as error:
        reason = _last_line(done.stderr) or _last_line(done.stdout) or f"exit status {done.returncode}"
        raise ToolError(f"METEOR's Java program failed ({reason}): check Java, or set metrics.meteor=false") from error
    # METEOR counts a caption that equals its reference (one chunk that covers both) as no chunk, also in sums.
    whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(axis=1)
    counts[whole, 20] = 0
    return counts


def meteor(counts: np.ndarray) -> np.ndarray:
    """Compute METEOR from statistics (eqs. 1–4 of the paper).

    Args:
        counts: […, 23] statistics (`meteor_counts`) of one caption, or sums over several captions.

    Returns:
        […] METEOR, as a fraction.
    """
    lengths, function_words = counts[..., 0:2], counts[..., 2:4]  # [caption, reference]
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)  # [kind of match, content | function, side]
    chunks, matched = counts[..., 20], counts[..., 21:23]
    weighed = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]  # […, 4, 2]
    totals = DELTA * (lengths - function_words) + (1 - DELTA) * function_words
    shares = _ratio(np.einsum("...ks,k->...s", weighed, _WEIGHTS), totals)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * _ratio(chunks, matched.mean(-1)) ** BETA)


def spice(references: Mapping[Any, Sequence[str]], captions: Mapping[Any, str]) -> np.ndarray:
    """Compute the SPICE F-score of each image.

    Args:
        references: image id -> token strings of its references.
        captions: image id -> token string of its caption.

    Returns:
        One score per image, in the order of `references`.

    Raises:
        ToolError: there is no Java, a file is missing, or the program failed.
    """
    package = jar(TOKENIZER).parents[1]
    command(wanted_by="SPICE")
    if missing := [package / name for name in MODELS if not (package / name).is_file()]:
        raise ToolError(
            f"SPICE needs {' and '.join(path.name for path in missing)} (400 MB) in {missing[0].parent}: "
            f"download {SOURCE} and unpack them there"
        )
    from pycocoevalcap.spice.spice import Spice

    # The official scorer sorts its keys, but image ids may be numbers or texts, so rows serve as keys.
    truths = {row: list(texts) for row, texts in enumerate(references.values())}
    texts = {row: [captions[image_id]] for row, image_id in enumerate(references)}
    try:
        _, scores = Spice().compute_score(truths, texts)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise ToolError(f"SPICE's Java program failed ({error}): check Java, or set metrics.spice=false") from error
    # The official scorer returns its scores in the order of the sorted ids.
    found = {image_id: values["All"]["f"] for image_id, values in zip(sorted(truths), scores, strict=True)}
    return np.array([found[image_id] for image_id in truths])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
