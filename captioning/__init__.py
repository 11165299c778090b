"""Train, evaluate and use image captioning models with attention, and see where the model looked.

import captioning
captioner = captioning.load("runs/…/checkpoints/best.ckpt")  # or "flickr8k-small", which comes with the package
caption, = captioner.caption("photo.jpg", beam_size=3)
caption.text, caption.log_prob, caption.attention  # [words, places]
captioner.captions("photo.jpg", "sample", samples=5)  # several a picture
captioner.score_captions(["photo.jpg"], ["a dog runs"])[0].perplexity
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    # At first use: scoring and tokenizing need no torch.
    if name in ("load", "score_captions"):
        from captioning.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'captioning' has no attribute '{name}'")
