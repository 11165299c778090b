from captioning.text.answer_normalizer import clean as clean
from captioning.text.answer_normalizer import normalize as normalize
from captioning.text.answer_normalizer import without_punctuation as without_punctuation
from captioning.text.letters import letter_script as letter_script
from captioning.text.letters import letters_by_script as letters_by_script
from captioning.text.ptb_tokenizer import PUNCTUATION as PUNCTUATION
from captioning.text.ptb_tokenizer import tokenize as tokenize
from captioning.text.scripts import Unsplit as Unsplit
from captioning.text.scripts import WARN_FROM as WARN_FROM
from captioning.text.scripts import is_unsplit as is_unsplit
from captioning.text.scripts import script_of as script_of
from captioning.text.scripts import unsplit as unsplit
from captioning.text.scripts import unsplit_line as unsplit_line
from captioning.text.scripts import unsplit_share as unsplit_share
from captioning.text.scripts import unsplit_warning as unsplit_warning
from captioning.text.tokenizer import TOKENIZERS as TOKENIZERS
from captioning.text.tokenizer import Tokenizer as Tokenizer
from captioning.text.tokenizer import make_tokenizer as make_tokenizer
from captioning.text.tokenizer import tokenizer_from_state_dict as tokenizer_from_state_dict

__all__: list[str]
