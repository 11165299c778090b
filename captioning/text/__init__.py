"""Split captions and answers into words: the Penn-Treebank tokenizer, and the normalization of answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer_normalizer": ["clean", "normalize", "without_punctuation"],
        "ptb_tokenizer": ["PUNCTUATION", "tokenize"],
    },
)
