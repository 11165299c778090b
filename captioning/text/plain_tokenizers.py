"""Split captions at white space only, or into single characters."""

from typing import ClassVar

from captioning.text.tokenizer import Tokenizer


class WhitespaceTokenizer(Tokenizer):
    """Words are what white space separates, unchanged: for captions that are tokenized already."""

    kind: ClassVar = "whitespace"

    def __call__(self, text: str) -> list[str]:
        """Split one caption at white space."""
        return text.split()
