from captioning.data.grammars.chinese import CHINESE as CHINESE
from captioning.data.grammars.english import ENGLISH as ENGLISH
from captioning.data.grammars.japanese import JAPANESE as JAPANESE
from captioning.data.grammars.language import BACKGROUNDS as BACKGROUNDS
from captioning.data.grammars.language import COLOR_NAMES as COLOR_NAMES
from captioning.data.grammars.language import Frame as Frame
from captioning.data.grammars.language import Language as Language
from captioning.data.grammars.language import SHAPES as SHAPES
from captioning.data.grammars.language import either as either
from captioning.data.grammars.language import letters as letters
from captioning.data.grammars.languages import LANGUAGES as LANGUAGES
from captioning.data.grammars.languages import find_language as find_language
from captioning.data.grammars.thai import THAI as THAI

__all__: list[str]
