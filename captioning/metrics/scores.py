"""Score a split as coco-caption does, on Penn-Treebank tokens: BLEU, ROUGE-L, CIDEr, METEOR, SPICE.

"CIDEr" is coco-caption's, that is CIDEr-D; document frequencies come from the references being scored, so a subset's
score is not a slice of the whole's, and one image alone scores 0. docs/metrics.md has the definitions.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.errors import ConfigError, DataError, ToolError
from captioning.metrics import bleu, diversity, java
from captioning.metrics.bootstrap import intervals
from captioning.metrics.ciderd import CiderD
from captioning.metrics.ngrams import References
from captioning.metrics.rouge import rouge_l
from captioning.metrics.table import ScoreTable
from captioning.text import tokenize, unsplit_warning

Tokens = dict[int | str, list[list[str]]]
TOKENIZERS: dict[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "python": lambda texts: [tokenize(text) for text in texts],
    "java": java.tokenize_all,
}


class Report(NamedTuple):
    """All that is known of a split's captions."""

    scores: dict[str, float]  # fractions
    intervals: dict[str, tuple[float, float]]  # 95 %, from so many `resamples`
    table: ScoreTable  # image by image
    captions: dict[str, float]  # diversity, lengths, unknown words
    samples: dict[str, float]  # of several captions an image, where given
    unavailable: dict[str, str]  # score -> why it is not there
    tokenizer: str
    resamples: int
    notes: dict[str, str]  # score -> what its reader must know about it
    references: str  # a fingerprint of the references' tokens, whatever the images are called and in whatever order


class Scorer:
    """Scores captions, with error bars.

    Args:
        tokenizer: "python", which agrees with the Java original (docs/metrics.md), or "java", the original.
        meteor, spice: whether to compute them, through Java programs. One that cannot run is reported as unavailable.
        bootstrap: resamples for the intervals; 0 leaves them out.
        seed: of the resamples.
    """

    def __init__(
        self,
        *,
        tokenizer: str = "python",
        meteor: bool = False,
        spice: bool = False,
        bootstrap: int = 1000,
        seed: int = 0,
    ):
        if tokenizer not in TOKENIZERS:
            raise ConfigError(f"metrics.tokenizer must be {' or '.join(TOKENIZERS)}, not {tokenizer!r}")
        if bootstrap < 0:
            raise ConfigError(f"metrics.bootstrap must be 0 or more, not {bootstrap}")
        if seed < 0:
            raise ConfigError(f"metrics.seed must be 0 or more, not {seed}")
        self.tokenizer, self.bootstrap, self.seed = tokenizer, bootstrap, seed
        self._programs = [name for name, wanted in (("METEOR", meteor), ("SPICE", spice)) if wanted]

    def __call__(
        self,
        references: Mapping[int, Sequence[str]],
        captions: Mapping[int, str],
        *,
        training: Collection[str] | None = None,
        samples: Mapping[int, Sequence[str]] | None = None,
        unknown: str = "<unk>",
    ) -> Report:
        """Scores one caption an image against its references.

        Args:
            references: image id -> raw reference captions, at least one each.
            captions: image id -> raw caption; exactly the images of `references`.
            training: raw captions of the training split, to tell novel captions.
            samples: image id -> several raw captions, for diversity and oracle scores.
            unknown: how captions spell a word that is not in the vocabulary.

        Raises:
            DataError: the images differ, one has no reference, or a caption is no text.
            ToolError: tokenizer "java", without Java.
        """
        truths, (hypotheses, spare) = tokenize_captions_of(
            self.tokenizer, references, {k: [v] for k, v in captions.items()}, samples
        )
        flat = {image_id: group[0] for image_id, group in hypotheses.items()}
        index = _index(truths)
        table, unavailable = _table(index, truths, flat, captions), {}
        for name in self._programs:
            try:
                table = _with_program(name, table, truths, flat)
            except ToolError as error:
                unavailable[name] = str(error)
        if training is not None and not training:
            unavailable["novel"] = "the data set has no training captions"
        known = {tuple(words) for words in TOKENIZERS[self.tokenizer](sorted(training))} if training else None
        scores, notes = _scores(table), {}
        errors = intervals(table, resamples=self.bootstrap, seed=self.seed) if self.bootstrap else {}
        if reason := cider_is_zero(truths):
            notes["CIDEr"] = reason
            errors.pop("CIDEr", None)
        given = {"references": [text for texts in references.values() for text in texts], "captions": captions.values()}
        unsplit = [warning for where, texts in given.items() if (warning := unsplit_warning(texts, where))]
        notes |= {"WARNING": unsplit[0]} if unsplit else {}
        return Report(
            scores=scores,
            intervals=errors,
            table=table,
            captions=diversity.describe_diversity(
                list(flat.values()), truths.values(), training=known, unknown=unknown
            ),
            samples=diversity.describe_samples(spare, truths, index) if samples else {},
            unavailable=unavailable,
            tokenizer=self.tokenizer,
            resamples=self.bootstrap,
            notes=notes,
            references=fingerprint(truths),
        )


def score(references: Mapping[int, Sequence[str]], captions: Mapping[int, str]) -> dict[str, float]:
    """{"BLEU-1", …, "BLEU-4", "ROUGE-L", "CIDEr"} as fractions, and nothing else: for validation during training.

    Arguments and errors are those of `Scorer`.
    """
    truths, (hypotheses, _) = tokenize_captions_of("python", references, {k: [v] for k, v in captions.items()}, None)
    flat = {image_id: group[0] for image_id, group in hypotheses.items()}
    return _scores(_table(_index(truths), truths, flat, captions))


def fingerprint(truths: Tokens) -> str:
    """The same for the same references, however their images are named and ordered."""
    images = sorted(repr(sorted(" ".join(tokens) for tokens in group if tokens)) for group in truths.values())
    return hashlib.sha256("\n".join(images).encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


def cider_is_zero(truths: Tokens) -> str | None:
    """Why CIDEr is 0 for these references whatever the captions are; None where it is not.

    An n-gram weighs log(images / images whose references have it), so one that all images have weighs nothing.
    """
    grams = ({gram for reference in group for gram in _grams(_words(reference))} for group in truths.values())
    first = next(grams)
    if any(each != first for each in grams):  # most end at the second image
        return None
    if len(truths) == 1:
        return "0 for any caption of one image alone, by its definition; score two images or more"
    return f"0 for any caption, by its definition: all {len(truths)} images have the same references"


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + order]) for order in range(1, 5) for at in range(len(words) - order + 1)}


def tokenize_captions_of(
    tokenizer: str,
    references: Mapping[int, Sequence[str]],
    *captions: Mapping[int, Sequence[str]] | None,
) -> tuple[Tokens, list[Tokens]]:
    """Tokens of references and of each set of captions, all of the same images, in the order of the references."""
    groups = [{image_id: list(texts) for image_id, texts in references.items()}]
    for given in captions:
        if given is not None:
            check_captions(references, given)
        # In the order of the references, so that equal inputs give equal bits whatever order the captions came in.
        groups.append({image_id: list(given[image_id]) for image_id in references} if given is not None else {})
    tokens = iter(TOKENIZERS[tokenizer]([text for group in groups for texts in group.values() for text in texts]))
    cut = [{image_id: [next(tokens) for _ in texts] for image_id, texts in group.items()} for group in groups]
    return cut[0], cut[1:]


def check_captions(references: Mapping[int, Sequence[str]], captions: Mapping[int, Sequence[str]]) -> None:
    """Raises a DataError that names the images at fault, all faults at once."""
    if not references:
        raise DataError("nothing to score: there are no references")
    faults = {
        "without a caption": references.keys() - captions.keys(),
        "without references": captions.keys() - references.keys(),
        "with an empty list of references": _whose(references, lambda texts: not texts),
        "with an empty list of captions": _whose(captions, lambda texts: not texts),
        "with a reference that is no text": _whose(references, _no_text),
        "with a caption that is no text": _whose(captions, _no_text),
    }
    found = [f"{len(ids)} images {fault}: image ids {name_ids(ids)}" for fault, ids in faults.items() if ids]
    if found:
        raise DataError(f"cannot score {'; '.join(found)}")


def name_ids(ids: Collection) -> str:
    """The first few of some ids."""
    ordered = sorted(ids, key=lambda number: (isinstance(number, str), number))
    return ", ".join(map(str, ordered[:5])) + (" …" if len(ids) > 5 else "")


def _whose(groups: Mapping[int, Sequence[str]], fault: Callable[[Sequence[str]], bool]) -> list[int]:
    return [image_id for image_id, texts in groups.items() if fault(texts)]


def _no_text(texts: Sequence[str]) -> bool:
    return not all(isinstance(text, str) for text in texts)


def _words(tokens: Sequence[str]) -> list[str]:
    """Tokens as BLEU and CIDEr see them: the official scorers cut "22 3/4" at its no-break space, ROUGE-L does not."""
    return " ".join(tokens).split()


def _index(truths: Tokens) -> References:
    return References({image_id: [_words(tokens) for tokens in group] for image_id, group in truths.items()})


def _table(index: References, truths: Tokens, flat: Mapping[int, list[str]], captions: Mapping[int, str]) -> ScoreTable:
    matches = index.match(list(truths), [_words(flat[image_id]) for image_id in truths])
    counted = bleu.bleu_counts(index, matches)
    values = {f"BLEU-{order}": column for order, column in enumerate(bleu.bleu(counted).T, start=1)}
    values["ROUGE-L"] = np.array([rouge_l(flat[image_id], group) for image_id, group in truths.items()])
    values["CIDEr"] = CiderD(index).score(matches)
    return ScoreTable(list(truths), [captions[image_id] for image_id in truths], values, {"BLEU": counted})


def _with_program(name: str, table: ScoreTable, truths: Tokens, flat: Mapping[int, list[str]]) -> ScoreTable:
    texts = {image_id: [" ".join(tokens) for tokens in group] for image_id, group in truths.items()}
    captions = {image_id: " ".join(tokens) for image_id, tokens in flat.items()}
    if name == "SPICE":
        return table._replace(values=table.values | {name: java.spice(texts, captions)})
    counts = java.meteor_counts(list(texts.values()), [captions[image_id] for image_id in texts])
    return table._replace(values=table.values | {name: java.meteor(counts)}, counts=table.counts | {name: counts})


def _scores(table: ScoreTable) -> dict[str, float]:
    return {name: float(total[0]) for name, total in table.totals().items()}
