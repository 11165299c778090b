"""Guide captions by tags: name the things that a classifier or a detector sees, and not those that it does not see."""

import hashlib
import inspect
import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from captioning.data import Vocabulary
from captioning.decoding import PhraseRules, WordGroup
from captioning.errors import ConfigError, DataError, must_be
from captioning.inference.borrowed_words import BorrowedWords, ExtendedVocabulary
from captioning.inference.english_phrases import english_phrases
from captioning.io import counted
from captioning.tags import (
    HOMONYMS,
    MORE_PEOPLE,
    Tag,
    borrowable,
    broader_than,
    canonical_noun,
    category_of,
    coco_words,
    load_tagger,
    read_tags,
)

# Categories of COCO whose things are large in most photos, so that a classifier of the whole photo seldom misses them.
RELIABLE = (
    "airplane", "bear", "bed", "bird", "boat", "bus", "car", "cat", "couch", "cow", "dog", "elephant", "giraffe",
    "horse", "motorcycle", "sheep", "toilet", "train", "truck", "zebra",
)  # fmt: skip

MOST_NATS = 1000.0  # more would only lose precision
CLASSIFIER = "classifier"


class Guided(NamedTuple):
    """A captioner for one batch of images with their tags.

    Attributes:
        captioner: Has `begin` and `step`, with the borrowed words.
        guides: Groups of words for each image; an argument of every search.
        no_repeat_ngram: For a search that does not set it.
        phrases: Rules about phrases, an argument of every search; None: none.
    """

    captioner: BorrowedWords
    guides: list[list[WordGroup]]
    no_repeat_ngram: int
    phrases: PhraseRules | None = None


class TagGuide:
    """Turn the tags of images into groups of words that guide a search.

    - A tag of a category of COCO, or of a noun in `stand_ins`, with at least `confidence` must be named: its group is
      required, at most `most` groups per image. People are never required.
    - A tag with at least `support` may be named: its group has the bonus `bonus` · confidence.
    - A category of COCO without such a tag should not be named: the group of its words has the bonus −`malus`. With a
      classifier this holds only for large things, which it seldom misses (`RELIABLE`), and for people, unless nothing
      else is supported: a caption needs a noun. Other things have the bonus −`doubt`. With a file of tags, the malus
      holds for all categories. Words that often mean something else, such as "orange" (`captioning.tags.HOMONYMS`),
      have neither `doubt` nor the malus of a file.
    - The same `no_repeat_ngram` words are not written twice in a row of a caption: words that the captioner would not
      have chosen make repetitions more likely.

    A group has the forms of a noun that the captioner knows: "dog", "dogs", "puppy". If it knows none, and `borrow` is
    true, they are borrowed words with a stand-in. Of tags for one thing, such as "truck" and "van", only the most
    certain one counts.

    Args:
        tags: "classifier" for an ImageNet classifier (`captioning.tags.Tagger`), or a file of tags
            (`captioning.tags.read_tags`), which must list everything that may be named.
        confidence: See above.
        most: See above.
        support: See above.
        bonus: In nats.
        malus: In nats.
        doubt: In nats.
        people: As `support`, for people, whom the classifier finds less reliably.
        no_repeat_ngram: As in `captioning.decoding.Rules`, for a search that does not set it.
        grammar: Whether the captions of an English captioner follow `captioning.inference.english_phrases`.
        borrow: Whether words that training never saw may be written.
        stand_ins: Further stand-ins, {noun: word of the captioner}.

    Raises:
        ConfigError: A number is out of range, or there is no such file.
        DataError: The file cannot be read.
    """

    def __init__(
        self,
        tags: str | Path = "classifier",
        *,
        confidence: float = 0.6,
        most: int = 2,
        support: float = 0.3,
        bonus: float = 0.0,
        malus: float = 6.0,
        doubt: float = 0.4,
        people: float = 0.6,
        no_repeat_ngram: int = 3,
        grammar: bool = True,
        borrow: bool = True,
        stand_ins: Mapping[str, str] | None = None,
    ):
        if not isinstance(tags, str | Path):
            raise ConfigError(f"tags={tags!r:.60} is not text. Choose tags=classifier, or give a JSON file of tags")
        for name, share in (("confidence", confidence), ("support", support), ("people", people)):
            _check_number(name, share, most=1)
        for name, nats in (("bonus", bonus), ("malus", malus), ("doubt", doubt)):
            _check_number(name, nats, most=MOST_NATS)
        for name, count in (("most", most), ("no_repeat_ngram", no_repeat_ngram)):
            _check_number(name, count, whole=True)
        for name, switch in (("borrow", borrow), ("grammar", grammar)):
            if not isinstance(switch, bool):
                raise ConfigError(f"guidance.{name} must be true or false, not {switch!r:.60}")
        if stand_ins is not None and not _is_of_text(stand_ins):
            raise ConfigError(f"guidance.stand_ins must be words such as {{okapi: horse}}, not {stand_ins!r:.60}")
        self.source, self.confidence, self.most, self.support = str(tags), confidence, most, support
        self.bonus, self.malus, self.people, self.borrow = bonus, malus, people, borrow
        self.doubt, self.no_repeat_ngram, self.grammar = doubt, no_repeat_ngram, grammar
        if self.source != CLASSIFIER and not Path(tags).is_file():
            raise ConfigError(f"tags={tags} is not a file. Choose tags=classifier, or give a JSON file of tags")
        self.tagger = load_tagger() if self.source == CLASSIFIER else None
        self.listed = {} if self.tagger else read_tags(tags)
        # A list of detections has no entry for an image without any; a mapping can have an empty one.
        self.is_list = not self.tagger and Path(tags).read_text(encoding="utf-8-sig").lstrip().startswith("[")
        self.stand_ins = {canonical_noun(noun): word for noun, word in (stand_ins or {}).items()}
        named = [canonical_noun(tag.noun) for tags in self.listed.values() for tag in tags]
        nouns = (
            self.tagger.nouns if self.tagger else [each for noun in named for each in (noun, category_of(noun)) if each]
        )
        self.nouns = list(dict.fromkeys([*nouns, *self.stand_ins]))
        self._asked, self._found = 0, 0  # images that were captioned, and those of them that a file has an entry for
        self._unknown: dict[str, None] = {}  # nouns of these images that the captioner cannot write

    def notes(self) -> list[str]:
        """Return what of a file of tags could not be used for the images so far, one sentence each."""
        told = []
        if self._asked and not self._found:
            told.append(
                f"{self.source} lists none of these images, so no tag guided a caption: its image_id must be the "
                "number in the file's name, or the id in the data set"
            )
        if self._unknown and not self.tagger:
            first = ", ".join([*list(self._unknown)[:5], *["…"][: len(self._unknown) > 5]])
            told.append(
                f"{self.source}: {counted(len(self._unknown), 'noun')} that the captioner does not know ({first}) did "
                "not guide it: to use them, name known words that stand in, such as "
                f"guidance.stand_ins={{{next(iter(self._unknown))}: WORD}}"
            )
        return told

    def describe(self) -> str:
        """Return the source of the tags and the settings that differ from their defaults, for the label of a score."""
        default = {name: each.default for name, each in inspect.signature(type(self)).parameters.items()}
        own = {name: getattr(self, name) for name in default if name != "tags"} | {"stand_ins": self.stand_ins or None}
        if not self.tagger:
            digest = hashlib.sha256(Path(self.source).read_bytes()).hexdigest()[:8]
            return " ".join([f"{Path(self.source).name} ({digest})", *self._changed(own, default)])
        return " ".join([self.source, *self._changed(own, default)])

    @staticmethod
    def _changed(own: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
        return [f"{name}={value}" for name, value in own.items() if value != default[name]]

    def extend(self, vocabulary: Vocabulary) -> ExtendedVocabulary:
        """Return the vocabulary of a captioner with the words that it can borrow.

        Raises:
            ConfigError: the captioner writes words in pieces.
        """
        if vocabulary.tokenizer.learned_pieces() is not None:
            raise ConfigError(
                f"tags={self.source}: tags guide captioners of whole words, but this one writes words in pieces "
                f"(data.tokenizer={vocabulary.tokenizer.name}). Set tags=null"
            )
        for noun, word in self.stand_ins.items():
            if word not in vocabulary.words[4:]:
                raise ConfigError(
                    f"guidance.stand_ins: '{word}', the stand-in of '{noun}', is not a word of the captioner. Choose "
                    "one of its words"
                )
        return ExtendedVocabulary(vocabulary, borrowable(self.nouns, set(vocabulary.words), self.stand_ins))

    def tags_of(self, picture: Image.Image, name: Any = None, *, image_id: Any = None) -> list[Tag]:
        """Return the tags of an image, the most certain first.

        Args:
            picture: the opened image.
            name: its path, for a file of tags. The entry with the longest part of the path counts: "b/1.jpg" before
                "1.jpg"; then the number in the name.
            image_id: its id in a data set, for a file of tags.

        Raises:
            DataError: the file has no entry for the image.
        """
        if self.tagger:
            return self.tagger.tag(picture, min_confidence=min(self.support, self.confidence, self.people))
        path = Path(str(name))
        keys = [str(name), *("/".join(path.parts[start:]) for start in range(len(path.parts))), path.stem]
        digits = re.search(r"\d+$", path.stem)
        keys += [str(image_id)] if image_id is not None else [str(int(digits.group()))] if digits else []
        key = next((key for key in keys if key in self.listed), None)
        self._asked += 1
        self._found += key is not None
        if key is None and self.is_list:
            return []
        if key is None:
            raise DataError(
                f"{self.source} has no tags for {name}. Add an entry for {path.name!r}; [] for an image without tags"
            )
        return self.listed[key]

    def groups_of(self, tags: Sequence[Tag], words: ExtendedVocabulary, *, most: int | None = None) -> list[WordGroup]:
        """Return the groups of words of one image.

        Args:
            tags: its tags.
            words: the result of `extend`.
            most: largest number of required groups, if that is less than the guide's own `most`. The most certain tags
                stay required.
        """
        allowed = self.most if most is None else min(self.most, most)
        groups: list[WordGroup] = []
        used: set[int] = set()
        named: set[str] = set()  # nouns and categories with a group
        broader: set[str] = set()  # more general nouns of these
        supported: set[str] = set()
        required = 0
        for tag in sorted(tags, key=lambda tag: -tag.confidence):
            if tag.confidence < min(self.support, self.confidence, self.people):
                break
            noun = canonical_noun(tag.noun)
            category = category_of(noun)
            if tag.confidence < min(self.support, self.confidence) and category != "person":
                continue
            if category == "person" and tag.confidence < self.people:
                continue
            supported |= {category}
            ids = self._ids(noun, words) or (self._ids(category, words) if category else ())
            twice = noun in broader or {noun, category, broader_than(noun)} & named
            if not ids:
                self._unknown[noun] = None
            if not ids or twice or used & set(ids):
                continue
            can_be = category not in ("", "person") or noun in self.stand_ins
            is_required = can_be and tag.confidence >= self.confidence and required < allowed
            required += is_required
            groups.append(WordGroup(ids, is_required, self.bonus * tag.confidence))
            used |= set(ids)
            named |= {noun, category} - {""}
            broader |= {broader_than(noun)}
        people = ["person"] if supported - {"", "person"} else []
        doubtful = [*RELIABLE, *people] if self.tagger else list(coco_words())
        for category in coco_words():
            certain = category in doubtful
            malus = self.malus if certain else self.doubt if category != "person" else 0.0
            ids = self._discouraged(category, words, homonyms=certain and self.tagger is not None)
            ids = tuple(i for i in ids if i not in used)
            if malus and ids and category not in supported:
                groups.append(WordGroup(ids, bonus=-malus))
        return groups

    def guide(
        self,
        captioner: Any,
        tags: Sequence[Sequence[Tag]],
        words: ExtendedVocabulary,
        *,
        device: Any,
        most: int | None = None,
    ) -> Guided:
        """Return a captioner and its groups for a batch of images.

        Args:
            captioner: the captioner, or an ensemble.
            tags: the tags of each image.
            words: the result of `extend`.
            device: device of the captioner.
            most: as for `groups_of`.
        """
        guides = [self.groups_of(each, words, most=most) for each in tags]
        allowed = torch.zeros(len(tags), len(words.stand_ins), dtype=torch.bool)
        for image, groups in enumerate(guides):
            for group in groups:
                if group.required:
                    allowed[image, [index - words.size for index in group.words if index >= words.size]] = True
        wrapped = BorrowedWords(captioner, words.stand_ins, size=words.size, allowed=allowed.to(device))
        return Guided(wrapped, guides, self.no_repeat_ngram, self._phrases(words))

    def _phrases(self, words: ExtendedVocabulary) -> PhraseRules | None:
        """Return the rules about phrases, made once per vocabulary."""
        if not self.grammar or not words.is_english:
            return None
        return words.cached("phrases", lambda: english_phrases(words, self._things(words)))

    def _things(self, words: ExtendedVocabulary) -> list[str]:
        """Return all words of the vocabulary for COCO's categories, besides people, and for `stand_ins`."""
        nouns = [*(category for category in coco_words() if category != "person"), *self.stand_ins]
        return list(dict.fromkeys(words.words.words[index] for noun in nouns for index in words.ids_of(noun)))

    def _discouraged(self, category: str, words: ExtendedVocabulary, *, homonyms: bool) -> tuple[int, ...]:
        """Return the ids of the words of a category that should not be named, found once per vocabulary."""
        key = f"discouraged {category} {homonyms}"
        return words.cached(key, lambda: self._find_discouraged(category, words, homonyms=homonyms))

    def _find_discouraged(self, category: str, words: ExtendedVocabulary, *, homonyms: bool) -> tuple[int, ...]:
        ids = self._known(category, words)
        if category == "person":
            ids += tuple(i for noun in MORE_PEOPLE for i in self._known(noun, words) if i not in ids)
        if homonyms:
            return ids
        return tuple(index for index in ids if words.words.words[index] not in HOMONYMS)

    def _known(self, noun: str, words: ExtendedVocabulary) -> tuple[int, ...]:
        return tuple(index for index in words.ids_of(noun) if index < words.size)

    def _ids(self, noun: str, words: ExtendedVocabulary) -> tuple[int, ...]:
        """Return the ids of the forms of a noun; those of borrowed words if the captioner knows none."""
        known = self._known(noun, words)
        if known or not self.borrow:
            return known
        return words.ids_of(noun)


def _check_number(name: str, value: Any, *, most: float | None = None, whole: bool = False) -> None:
    """Refuse a setting that is not a number from 0 to `most`."""
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
        given = "null" if value is None else repr(value)
        raise ConfigError(f"guidance.{name} must be a {'whole ' if whole else ''}number, not {given:.60}")
    must_be(f"guidance.{name}", float(value), least=0, most=most)


def _is_of_text(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(part, str) for pair in given.items() for part in pair)
