"""Split Chinese, Japanese and Thai into dictionary words with the programs that these fields use.

Each program is an optional package. Its version and its dictionary decide the words, so scores are comparable only
between runs with the same versions.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

from captioning.errors import ConfigError

Segment = Callable[[str], list[str]]


class Segmenter(NamedTuple):
    """A program that splits text into words.

    Attributes:
        packages: the packages that it needs.
        extra: the extra of this package that installs them.
        scripts: the names of the scripts (`captioning.text.scripts`) whose words it knows.
        case: changes a text to the dictionary's letter case, so that the case of a caption makes no difference.
        load: loads the program, and returns the function that splits a text without white space into words.
    """

    packages: tuple[str, ...]
    extra: str
    scripts: frozenset[str]
    case: Callable[[str], str]
    load: Callable[[], Segment]


def _upper(text: str) -> str:
    """Return text with the Latin letters of ASCII in upper case, as in jieba's dictionary: T恤, 卡拉OK."""
    return text.translate(_UPPER)


_UPPER = {code: chr(code).upper() for code in range(ord("a"), ord("z") + 1)}


def _jieba() -> Segment:
    with warnings.catch_warnings():  # jieba 0.42.1 has outdated string literals and looks for pkg_resources
        warnings.simplefilter("ignore")
        import jieba
    # The words and their counts are read from the package. jieba's own way is a cache file with a fixed name in the
    # folder for temporary files, where another user could put other words.
    program = jieba.Tokenizer()
    program.FREQ, program.total = program.gen_pfdict(program.get_dict_file())
    program.initialized = True
    return program.lcut


def _fugashi() -> Segment:
    import fugashi
    import unidic_lite

    # Name the dictionary: fugashi itself takes the larger UniDic if it is installed, whose words differ.
    tagger = fugashi.Tagger(f'-r /dev/null -d "{unidic_lite.DICDIR}"')
    return lambda text: [word.surface for word in tagger(text)]


def _pythainlp() -> Segment:
    from pythainlp.tokenize import word_tokenize

    return lambda text: word_tokenize(text, engine="newmm", keep_whitespace=False)


SEGMENTERS = {
    "jieba": Segmenter(("jieba",), "chinese", frozenset({"Han"}), _upper, _jieba),
    "fugashi": Segmenter(
        ("fugashi", "unidic_lite"), "japanese", frozenset({"Han", "Hiragana", "Katakana"}), str.lower, _fugashi
    ),
    "pythainlp": Segmenter(("pythainlp",), "thai", frozenset({"Thai"}), str.lower, _pythainlp),
}


def check_segmenter(name: str) -> Segmenter:
    """Return the segmenter of this name, without loading it.

    Raises:
        ConfigError: there is no such segmenter, or its packages are not installed.
    """
    if name not in SEGMENTERS:
        choices = ", ".join(f"unicode:{known}" for known in SEGMENTERS)
        raise ConfigError(f"data.tokenizer=unicode:{name}: there is no such segmenter. Write unicode, {choices}")
    found = SEGMENTERS[name]
    if missing := [package for package in found.packages if find_spec(package) is None]:
        raise ConfigError(
            f"data.tokenizer=unicode:{name} needs the package {' and '.join(missing).replace('_', '-')}. "
            f"Run: pip install 'captioning[{found.extra}]'"
        )
    return found


@lru_cache
def load_segmenter(name: str) -> Segment:
    """Load the segmenter of this name once per process, and return its function."""
    return check_segmenter(name).load()
