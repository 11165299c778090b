"""Train, evaluate and use image captioning models with attention, and see where the model looked.

import captioning
captioner = captioning.load("runs/…/checkpoints/best.ckpt")  # or "flickr8k-small", which comes with the package
caption, = captioner.caption("photo.jpg", beam_size=3)
caption.text, caption.log_prob, caption.attention  # [words, locations]
captioner.captions("photo.jpg", "sample", samples=5)  # several a picture
captioner.score_captions(["photo.jpg"], ["a dog runs"])[0].perplexity
"""

import lazy_loader

__version__ = "0.2.0"

# Loaded at first use: scores and tokenizers need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"inference": ["load", "score_captions"]})
