"""Find a language of the drawn scenes by its code."""

from captioning.data.grammars.chinese import CHINESE
from captioning.data.grammars.english import ENGLISH
from captioning.data.grammars.japanese import JAPANESE
from captioning.data.grammars.language import Language
from captioning.data.grammars.thai import THAI
from captioning.errors import ConfigError

LANGUAGES = {language.code: language for language in (ENGLISH, CHINESE, JAPANESE, THAI)}


def find_language(code: str) -> Language:
    """Return the language with an ISO 639-1 code.

    Raises:
        ConfigError: scenes have no captions in this language.
    """
    if code not in LANGUAGES:
        choices = ", ".join(f"{known} ({language.name})" for known, language in LANGUAGES.items())
        raise ConfigError(f"data.reader.language={code}: scenes have no captions in it. Choose one of {choices}")
    return LANGUAGES[code]
