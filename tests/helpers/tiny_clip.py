"""A CLIP model of random weights that open_clip reads from a folder, with images; and embeddings by a plain program."""

import json

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's inputs


def make_tiny_clip(folder):
    """Write the configuration of a model with 6 numbers per embedding, and four images, and return the folder."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    model = {"embed_dim": 6, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    random = np.random.default_rng(0)
    for number, size in {1: (40, 60, 3), 2: (50, 32, 3), 3: (35, 35, 3)}.items():
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(random.integers(0, 256, (40, 50), np.uint8)).save(folder / "gray.jpg")
    return folder


def images_of(tiny, *names):
    """Return the paths of these images, or of the three images in color."""
    return [tiny / name for name in names or ("1.png", "2.png", "3.png")]


@torch.inference_mode()
def plain_embeddings(encoder, paths, texts):
    """Embeddings as the authors' program computes them: its transform, its tokens cut after 77, one input at a time."""
    model = encoder._ready().model
    transform = Compose(
        [
            Resize(32, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(32),
            lambda image: image.convert("RGB"),
            ToTensor(),
            Normalize(MEAN, DEVIATION),
        ]
    )
    import open_clip

    ids = open_clip.SimpleTokenizer()
    rows = []
    for text in texts:
        tokens = [ids.sot_token_id, *ids.encode(text)][:76] + [ids.eot_token_id]
        rows.append(model.encode_text(torch.tensor([tokens + [0] * (77 - len(tokens))]))[0])
    pictures = [model.encode_image(transform(Image.open(path))[None])[0] for path in paths]
    return torch.stack(pictures).double().numpy(), torch.stack(rows).double().numpy()
