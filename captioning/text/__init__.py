"""Split captions of any language into words or pieces, normalize answers, and detect scripts without spaces."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer_normalizer": ["clean", "normalize", "without_punctuation"],
        "letters": ["letters_by_script", "letter_script"],
        "ptb_tokenizer": ["PUNCTUATION", "tokenize"],
        "tokenizer": ["TOKENIZERS", "Tokenizer", "make_tokenizer", "tokenizer_from_state_dict"],
        "scripts": [
            "Unsplit",
            "WARN_FROM",
            "is_unsplit",
            "script_of",
            "unsplit",
            "unsplit_line",
            "unsplit_share",
            "unsplit_warning",
        ],
    },
)
