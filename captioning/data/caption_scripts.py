"""Count the scripts in the captions of a data set, and name the tokenizer that suits them, for the audit."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captioning.data.records import Record
from captioning.text import WARN_FROM, Tokenizer, letter_script, letters_by_script, unsplit

NO_LETTERS = "no letters"  # the script of tokens of digits and signs
# Script -> the option of data.tokenizer=unicode that knows its words, and the extra that installs it.
WORDS = {"Hiragana": ("fugashi", "japanese"), "Katakana": ("fugashi", "japanese"), "Thai": ("pythainlp", "thai")}
WORDS |= {"Han": ("jieba", "chinese")}  # the last one: Japanese text has Han too, but only Japanese has Kana
SOME = 0.05  # share of the letters from which a script decides the language
ROWS = 8  # scripts that the terminal shows; audit.json has all


def script_numbers(captions: Iterable[str], tokens: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """Return one entry per script, the script with the most letters first.

    Args:
        captions: all captions.
        tokens: the words of each caption.

    Returns:
        Dictionaries with "script", and the shares of all "letters", of the "captions" with at least one letter of the
        script, and of the "tokens" with most of their letters in it. Tokens without letters have an entry of their own.
    """
    signs, present, words = Counter[str](), Counter[str](), Counter[str]()
    total = 0
    for caption in captions:
        signs.update(caption)
        present.update(set(map(letter_script, set(caption))) - {""})
        total += 1
    letters = letters_by_script(signs)
    for word, count in Counter(word for caption in tokens for word in caption).items():
        words[next(iter(letters_by_script(word)), NO_LETTERS)] += count
    return [
        {
            "script": script,
            "letters": letters[script] / max(1, letters.total()),
            "captions": present[script] / max(1, total),
            "tokens": words[script] / max(1, words.total()),
        }
        for script, _ in (letters + Counter({NO_LETTERS: 1} if words[NO_LETTERS] else {})).most_common()
    ]


class Suited(NamedTuple):
    """The tokenizer that suits the captions of a data set.

    Attributes:
        name: the value of `data.tokenizer`.
        reason: why it suits them.
        words: how to get words instead of characters for scripts without spaces; "" if there is no such script.
    """

    name: str
    reason: str
    words: str = ""


def suited_tokenizer(captions: Sequence[str], numbers: Sequence[Mapping[str, Any]]) -> Suited:
    """Return the tokenizer that suits the captions.

    Args:
        captions: all captions.
        numbers: the result of `script_numbers`.
    """
    shares = {entry["script"]: entry["letters"] for entry in numbers if entry["letters"]}
    main = max(shares, key=shares.__getitem__, default="Latin")
    share = f"{shares.get(main, 0):.0%} of the letters are {main}"
    found = unsplit(captions)
    if found.share >= WARN_FROM:
        reason = f"{found.share:.0%} of the captions have no spaces between words ({found.script} script)"
        option, extra = _dictionary(shares)
        setting = f"data.tokenizer=unicode:{option} (pip install 'captioning[{extra}]')"
        return Suited("unicode", reason, f"for words instead of characters: {setting}" if option else "")
    if main == "Latin":
        return Suited("ptb", f"{share}; it is the official tokenizer of English scores")
    return Suited("unicode", f"{share}; it normalizes them, and drops their punctuation")


def _dictionary(shares: Mapping[str, float]) -> tuple[str, str]:
    """Return the option of `unicode` that knows the words, and its extra; empty texts if there is none."""
    return next((WORDS[name] for name in WORDS if shares.get(name, 0) >= SOME), ("", ""))


def dictionary_option(counts: Mapping[str, int]) -> str:
    """Return the option of `data.tokenizer=unicode` whose dictionary has words of these; "" if there is none.

    Args:
        counts: the number of occurrences of each word; most of their letters must be in a script without spaces.
    """
    letters = Counter[str]()
    for word, count in counts.items():
        for script, found in letters_by_script(word).items():
            letters[script] += found * count
    total = letters.total()
    main = max(letters, key=letters.__getitem__, default="")
    return _dictionary({name: found / total for name, found in letters.items()})[0] if main in WORDS else ""


def tokenizer_advice(current: Tokenizer, suited: Suited, unsplit: str | None) -> list[str]:
    """Return what to do about captions that the current tokenizer does not suit; nothing if it does.

    Args:
        current: the tokenizer of the audit.
        suited: the result of `suited_tokenizer`.
        unsplit: the warning about captions that the current tokenizer cannot split, which names the setting too.
    """
    if suited.name != "unicode" or current.splits_unspaced:
        return []
    better = unsplit or f"data.tokenizer=unicode suits these captions better than {current.name}: {suited.reason}"
    return [line for line in (better, suited.words) if line]


def group_numbers(records: Iterable[Record]) -> dict[str, dict[str, dict[str, int]]]:
    """Return split -> group -> numbers of images and captions, for data sets whose images have groups (nocaps)."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for record in records:
        if (group := getattr(record, "group", None)) is not None:
            entry = counts.setdefault(record.split, {}).setdefault(group, {"images": 0, "captions": 0})
            entry["images"] += 1
            entry["captions"] += len(record.captions)
    return counts


def scripts_table(numbers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of the most frequent scripts, with shares in percent."""
    rows = [("script", "letters %", "captions %", "tokens %")]
    for entry in numbers[:ROWS]:
        rows.append((entry["script"], *(f"{100 * entry[key]:.2f}" for key in ("letters", "captions", "tokens"))))
    lines = table_lines(rows)
    return lines + ([f"… {len(numbers) - ROWS} more scripts"] if len(numbers) > ROWS else [])


def groups_table(groups: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return the lines of a table of the groups of each split; none if there are no groups."""
    rows = [("split", "group", "images", "captions")]
    for split, counts in groups.items():
        rows += [(split, name, str(entry["images"]), str(entry["captions"])) for name, entry in counts.items()]
    return table_lines(rows) if len(rows) > 1 else []


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines, with columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
