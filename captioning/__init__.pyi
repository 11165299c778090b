from captioning.inference import load as load
from captioning.inference import score_captions as score_captions

__version__: str
__all__: list[str]
