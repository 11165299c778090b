"""Score a split as coco-caption does: BLEU, ROUGE-L, CIDEr, METEOR and SPICE; also CLIPScore, PAC-S and CHAIR.

Official scores of English captions are computed on Penn-Treebank tokens. Captions in other languages are scored on the
words of the captioner's own tokenizer, or of the one that `metrics.tokenizer` names.

"CIDEr" is coco-caption's CIDEr, that is CIDEr-D. Its document frequencies are counted on the scored references. So the
score of some images depends on which other images are scored with them, and a single image scores 0. The definitions
are in docs/evaluate.md.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captioning.errors import ConfigError, DataError, ToolError
from captioning.io import counted
from captioning.metrics import bleu, diversity, java
from captioning.metrics.bootstrap import intervals
from captioning.metrics.chair import UNDEFINED, AnnotatedObjects, count_objects, values_of
from captioning.metrics.ciderd import CiderD
from captioning.metrics.image_scores import Embedder, check_images, score_notes, wanted_scores
from captioning.metrics.ngrams import References
from captioning.metrics.rouge import rouge_l
from captioning.metrics.table import ScoreTable
from captioning.text import Tokenizer, make_tokenizer, unsplit_warning

Tokens = dict[Any, list[list[str]]]  # by image id, an int or a str
Splitter = Callable[[Sequence[str]], list[list[str]]]  # texts -> words of each
JAVA = "java"  # the original Penn-Treebank tokenizer, a value of metrics.tokenizer
# METEOR and SPICE know only English; these tokenizers split text of other languages.
_NOT_ENGLISH = ("unicode", "characters")


class Report(NamedTuple):
    """The scores and statistics of a split's captions.

    Attributes:
        scores: name -> score of the split, as a fraction.
        intervals: name -> (low, high), the 95 % bootstrap interval.
        table: scores per image.
        captions: diversity, lengths and unknown words of the captions (`describe_diversity`).
        samples: statistics of several captions per image (`describe_samples`); {} if there are none.
        unavailable: name of a score -> why it could not be computed.
        tokenizer: "java", or the name of a tokenizer of `captioning.text`.
        resamples: number of bootstrap resamples of the intervals.
        notes: name of a score -> a note for its readers.
        references: fingerprint of the references' tokens, independent of the names and the order of the images.
        models: name of a score that looks at the image -> its model and weights; "CHAIR" -> fingerprint of the objects.
    """

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    table: ScoreTable
    captions: dict[str, float]
    samples: dict[str, float]
    unavailable: dict[str, str]
    tokenizer: str
    resamples: int
    notes: dict[str, str]
    references: str
    models: dict[str, str]


class Scorer:
    """A scorer of captions, with confidence intervals.

    Args:
        tokenizer: the name of a tokenizer of `captioning.text`, such as "ptb", whose tokens are those of the Java
            original (docs/evaluate.md), or "java", the original. None: the tokenizer given to the call, or "ptb".
        meteor: whether to compute METEOR, with its Java program. If it cannot run, it is reported as unavailable.
        spice: whether to compute SPICE, in the same way.
        clipscore: whether to compute CLIPScore and RefCLIPScore, with the model `clip`.
        pac_s: whether to compute PAC-S and RefPAC-S, with the model `pac`.
        clip: the model of CLIPScore (`captioning.evaluation.ClipEncoder`).
        pac: the model of PAC-S.
        bootstrap: number of resamples for the intervals; 0 computes no intervals.
        seed: seed of the resamples.

    Raises:
        ConfigError: a setting is out of its range, there is no such tokenizer, or a score has no model.
    """

    def __init__(
        self,
        *,
        tokenizer: str | None = None,
        meteor: bool = False,
        spice: bool = False,
        clipscore: bool = False,
        pac_s: bool = False,
        clip: Embedder | None = None,
        pac: Embedder | None = None,
        bootstrap: int = 1000,
        seed: int = 0,
    ):
        if bootstrap < 0:
            raise ConfigError(f"metrics.bootstrap must be 0 or more, not {bootstrap}")
        if seed < 0:
            raise ConfigError(f"metrics.seed must be 0 or more, not {seed}")
        self._chosen = None if tokenizer is None else _word_splitter(tokenizer)
        self.bootstrap, self.seed = bootstrap, seed
        self._programs = [name for name, wanted in (("METEOR", meteor), ("SPICE", spice)) if wanted]
        self._image_scores = wanted_scores(clipscore=clipscore, pac_s=pac_s, clip=clip, pac=pac)

    @property
    def looks_at_images(self) -> bool:
        """Whether a score needs the image files."""
        return bool(self._image_scores)

    def prepare(self, images: Mapping[Any, Path]) -> None:
        """Check that all image files exist, and load the models of scores that look at images, if there are any.

        Call it before captions are generated, which may take long; a call of the scorer does the same.

        Args:
            images: image id -> image file.

        Raises:
            ConfigError: a model cannot be loaded.
            DataError: a file does not exist.
        """
        check_images(self._image_scores, images, list(images))

    def __call__(
        self,
        references: Mapping[Any, Sequence[str]],
        captions: Mapping[Any, str],
        *,
        training: Collection[str] | None = None,
        samples: Mapping[Any, Sequence[str]] | None = None,
        unknown: str = "<unk>",
        tokenizer: Tokenizer | None = None,
        images: Mapping[Any, Path] | None = None,
        objects: AnnotatedObjects | None = None,
    ) -> Report:
        """Score one caption per image against the references of its image.

        Args:
            references: image id (int or str) -> raw reference captions, at least one.
            captions: image id -> raw caption, for exactly the images of `references`.
            training: raw captions of the training split, to compute the share of novel captions.
            samples: image id -> several raw captions, for diversity and oracle scores.
            unknown: the token for words that are not in the vocabulary.
            tokenizer: the captioner's, which splits the captions into words unless the setting names another one.
            images: image id -> image file, for scores that look at the image.
            objects: the annotated objects of the images, for CHAIR; None: without CHAIR.

        Raises:
            ConfigError: a score needs `images`, or its model cannot be loaded.
            DataError: the images differ, an image has no reference or no entry in `objects`, a caption is not text, or
                an image file does not exist or cannot be read.
            ToolError: the tokenizer is "java" and there is no Java.
        """
        name, split = self._chosen or _word_splitter("ptb" if tokenizer is None else tokenizer)
        truths, (hypotheses, spare) = tokenize_captions_of(
            split, references, {k: [v] for k, v in captions.items()}, samples
        )
        flat = {image_id: group[0] for image_id, group in hypotheses.items()}
        index = _index(truths)
        table, unavailable = _table(index, truths, flat, captions), {}
        check_images(self._image_scores, images, list(truths))
        for program in self._programs:
            if name.partition(":")[0] in _NOT_ENGLISH:
                unavailable[program] = f"it is defined only for English, and the tokens are those of {name}"
                continue
            try:
                table = _with_program(program, table, truths, flat)
            except ToolError as error:
                unavailable[program] = str(error)
        for image_score in self._image_scores:
            assert images is not None
            table = table._replace(values=table.values | image_score(references, captions, images))
        models = {each.name: each.embedder.describe() for each in self._image_scores}
        if objects is not None and name.partition(":")[0] in _NOT_ENGLISH:
            unavailable["CHAIR"] = f"it finds objects by English words, and the tokens are those of {name}"
        elif objects is not None:
            counts = count_objects(truths, flat, objects)
            table = table._replace(values=table.values | values_of(counts), counts=table.counts | counts)
            models["CHAIR"] = objects.describe(truths)
        if training is not None and not training:
            unavailable["novel"] = "the data set has no training captions"
        known = {tuple(words) for words in split(sorted(training))} if training else None
        scores, notes = _scores(table), {}
        unavailable |= {name: reason for name, reason in UNDEFINED.items() if name in table.values.keys() - scores}
        errors = intervals(table, resamples=self.bootstrap, seed=self.seed) if self.bootstrap else {}
        if reason := cider_is_zero(truths):
            notes["CIDEr"] = reason
            errors.pop("CIDEr", None)
        notes |= score_notes(self._image_scores, english=name.partition(":")[0] not in _NOT_ENGLISH)
        given = {"references": [text for texts in references.values() for text in texts], "captions": captions.values()}
        whole = name == JAVA or not make_tokenizer(name).splits_unspaced
        unsplit = [line for where, texts in given.items() if whole and (line := unsplit_warning(texts, where))]
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
            tokenizer=name,
            resamples=self.bootstrap,
            notes=notes,
            references=fingerprint(truths),
            models=models,
        )


def score(
    references: Mapping[Any, Sequence[str]], captions: Mapping[Any, str], *, tokenizer: str | Tokenizer = "ptb"
) -> dict[str, float]:
    """Compute only BLEU, ROUGE-L and CIDEr, for example for a validation during training.

    Args:
        references: image id (int or str) -> raw reference captions, at least one.
        captions: image id -> raw caption, for exactly the images of `references`.
        tokenizer: the tokenizer that splits them into words, or its name.

    Returns:
        {"BLEU-1", …, "BLEU-4", "ROUGE-L", "CIDEr"}, as fractions.

    Raises:
        DataError: the images differ, an image has no reference, or a caption is not text.
    """
    truths, (hypotheses, _) = tokenize_captions_of(
        _word_splitter(tokenizer)[1], references, {k: [v] for k, v in captions.items()}, None
    )
    flat = {image_id: group[0] for image_id, group in hypotheses.items()}
    return _scores(_table(_index(truths), truths, flat, captions))


def fingerprint(truths: Tokens) -> str:
    """Return a fingerprint of references; it does not depend on the names or the order of the images."""
    images = sorted(repr(sorted(" ".join(tokens) for tokens in group if tokens)) for group in truths.values())
    return hashlib.sha256("\n".join(images).encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


def cider_is_zero(truths: Tokens) -> str | None:
    """Return why CIDEr is 0 for all captions with these references; None if it is not.

    The weight of an n-gram is log(images / images whose references have it). It is 0 for an n-gram that all images
    have.
    """
    grams = ({gram for reference in group for gram in _grams(_words(reference))} for group in truths.values())
    first = next(grams)
    if any(each != first for each in grams):  # usually stops at the second image
        return None
    if len(truths) == 1:
        return "0 for any caption of one image alone, by its definition; score two images or more"
    return f"0 for any caption, by its definition: all {len(truths)} images have the same references"


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + order]) for order in range(1, 5) for at in range(len(words) - order + 1)}


def _word_splitter(tokenizer: str | Tokenizer) -> tuple[str, Splitter]:
    """Return the name of a tokenizer of words, and the function that splits texts with it.

    Raises:
        ConfigError: there is no such tokenizer, or it has to learn from captions first.
    """
    if tokenizer == JAVA:
        return JAVA, java.tokenize_all
    if isinstance(tokenizer, str):
        tokenizer = make_tokenizer(tokenizer, key="metrics.tokenizer")
        if tokenizer.word_tokenizer is not tokenizer:
            raise ConfigError(
                f"metrics.tokenizer={tokenizer.name}: scores compare words, not their pieces. "
                f"Set metrics.tokenizer={tokenizer.word_tokenizer.name}"
            )
    split = tokenizer.word_tokenizer
    return split.name, lambda texts: [split(text) for text in texts]


def tokenize_captions_of(
    split: Splitter,
    references: Mapping[Any, Sequence[str]],
    *captions: Mapping[Any, Sequence[str]] | None,
) -> tuple[Tokens, list[Tokens]]:
    """Tokenize references and sets of captions of the same images; results have the order of the references.

    Args:
        split: splits texts into words.
        references: image id -> raw references.
        captions: sets of image id -> raw captions; None for a set that is not given.

    Raises:
        DataError: the images differ, an image has no reference, or a caption is not text.
    """
    groups = [{image_id: list(texts) for image_id, texts in references.items()}]
    for given in captions:
        if given is not None:
            check_captions(references, given)
        # The fixed order makes the scores equal to the last bit, independent of the order of the captions.
        groups.append({image_id: list(given[image_id]) for image_id in references} if given is not None else {})
    tokens = iter(split([text for group in groups for texts in group.values() for text in texts]))
    cut = [{image_id: [next(tokens) for _ in texts] for image_id, texts in group.items()} for group in groups]
    return cut[0], cut[1:]


def check_captions(references: Mapping[Any, Sequence[str]], captions: Mapping[Any, Sequence[str]]) -> None:
    """Check that references and captions are texts of the same images.

    Raises:
        DataError: they are not. The message lists all problems with the image ids.
    """
    if not references:
        raise DataError("nothing to score: there are no references. Check the annotations file (annotations=…)")
    faults = {
        "without a caption": references.keys() - captions.keys(),
        "without references": captions.keys() - references.keys(),
        "with an empty list of references": _whose(references, lambda texts: not texts),
        "with an empty list of captions": _whose(captions, lambda texts: not texts),
        "with a reference that is not text": _whose(references, _no_text),
        "with a caption that is not text": _whose(captions, _no_text),
    }
    found = [f"{counted(len(ids), 'image')} {fault}: image ids {name_ids(ids)}" for fault, ids in faults.items() if ids]
    if found:
        raise DataError(f"cannot score {'; '.join(found)}. Give one caption and at least one reference per `image_id`")


def name_ids(ids: Collection) -> str:
    """Return up to five ids for a message, sorted, with " …" if there are more."""
    ordered = sorted(ids, key=lambda number: (isinstance(number, str), number))
    return ", ".join(map(str, ordered[:5])) + (" …" if len(ids) > 5 else "")


def _whose(groups: Mapping[Any, Sequence[str]], fault: Callable[[Sequence[str]], bool]) -> list[Any]:
    return [image_id for image_id, texts in groups.items() if fault(texts)]


def _no_text(texts: Sequence[str]) -> bool:
    return not all(isinstance(text, str) for text in texts)


def _words(tokens: Sequence[str]) -> list[str]:
    """Split tokens at spaces as the official BLEU and CIDEr do ("22 3/4" has a no-break space); ROUGE-L does not."""
    return " ".join(tokens).split()


def _index(truths: Tokens) -> References:
    return References({image_id: [_words(tokens) for tokens in group] for image_id, group in truths.items()})


def _table(index: References, truths: Tokens, flat: Mapping[Any, list[str]], captions: Mapping[Any, str]) -> ScoreTable:
    matches = index.match(list(truths), [_words(flat[image_id]) for image_id in truths])
    counted = bleu.bleu_counts(index, matches)
    values = {f"BLEU-{order}": column for order, column in enumerate(bleu.bleu(counted).T, start=1)}
    values["ROUGE-L"] = np.array([rouge_l(flat[image_id], group) for image_id, group in truths.items()])
    values["CIDEr"] = CiderD(index).score(matches)
    return ScoreTable(list(truths), [captions[image_id] for image_id in truths], values, {"BLEU": counted})


def _with_program(name: str, table: ScoreTable, truths: Tokens, flat: Mapping[Any, list[str]]) -> ScoreTable:
    texts = {image_id: [" ".join(tokens) for tokens in group] for image_id, group in truths.items()}
    captions = {image_id: " ".join(tokens) for image_id, tokens in flat.items()}
    if name == "SPICE":
        return table._replace(values=table.values | {name: java.spice(texts, captions)})
    counts = java.meteor_counts(list(texts.values()), [captions[image_id] for image_id in texts])
    return table._replace(values=table.values | {name: java.meteor(counts)}, counts=table.counts | {name: counts})


def _scores(table: ScoreTable) -> dict[str, float]:
    """Return the scores of all images that are defined for them."""
    return {name: float(total[0]) for name, total in table.totals().items() if np.isfinite(total[0])}
