"""Image captioning with attention: train, evaluate, and see where the model looked.

import captioning
captioner = captioning.load("runs/…/checkpoints/best.ckpt")
caption, = captioner.caption("photo.jpg", beam_size=3)
caption.text, caption.log_prob, caption.attention  # [words, places]
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    # At first use: scoring and tokenising need no torch.
    if name == "load":
        from captioning.predictor import load

        return load
    raise AttributeError(f"module 'captioning' has no attribute '{name}'")
