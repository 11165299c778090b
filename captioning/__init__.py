"""Train, evaluate and use image captioning models with attention, and see where the model looked.

import captioning
captioner = captioning.load("runs/soft/checkpoints/best.ckpt")  # or "flickr8k-small", which the package includes
caption, = captioner.caption("photo.jpg", beam_size=3)
caption.text, caption.log_prob, caption.attention  # attention: [words, L]
captioner.captions("photo.jpg", "sample", samples=5)  # five captions per image
captioner.score_captions(["photo.jpg"], ["a dog runs"])[0].perplexity
"""

import lazy_loader

__version__ = "0.2.0"

# These names are loaded at their first use, so that scores and tokenizers do not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"inference": ["load", "score_captions"]})
