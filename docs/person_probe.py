"""Train the person probe of `captioning/tags`: `python docs/person_probe.py FLICKR8K COCO [--cache FILE.npy]`.

ImageNet has no class for people. The probe is a logistic regression on the mean feature of EfficientNet-Lite0: the
share of a photo's references that mention a person. It is trained on the 6,000 training photos of Flickr8k, with a
strong ridge penalty, because most of their photos without people show dogs. It is calibrated on Flickr8k val and on
COCO train2017 (a sample is enough), each with the same total weight. Photos of other splits are not used.

FLICKR8K has captions_train.json and captions_val.json or dataset_flickr8k.json, COCO has annotations and images. The
script writes captioning/tags/person_lite0.safetensors and prints how reliable the probe is.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from captioning.data import COCO_WORDS, Record, open_picture, read_coco, read_instances, read_karpathy, select
from captioning.metrics import compile_phrases, find_mentions
from captioning.tags import PERSON_PROBE, load_tagger
from captioning.text import tokenize

RIDGE = 0.2
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def shares(records: Sequence[Record]) -> Tensor:
    """Return the share of each photo's references that mention a person."""
    phrases = compile_phrases(yaml.safe_load(COCO_WORDS.read_text(encoding="utf-8")))
    said = [
        [any(each.category == "person" for each in find_mentions(tokenize(caption), phrases)) for caption in captions]
        for captions in (record.captions for record in records)
    ]
    return torch.tensor([sum(each) / len(each) for each in said])


@torch.inference_mode()
def encode(records: Sequence[Record], *, crops: bool) -> Tensor:
    """Return the mean features of the views of photos, [photos, V, D]; without crops V is 1."""
    tagger = load_tagger(probes=())
    views = tagger.views if crops else tagger.views[:1]
    encoded = []
    for record in records:
        photo = open_picture(record.path)
        encoded.append(tagger.encoder(torch.stack([view(photo) for view in views])).mean(1))
    return torch.stack(encoded)


def fit(features: Tensor, targets: Tensor, weights: Tensor, *, ridge: float) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression [N, D] -> [N] with a ridge penalty, by L-BFGS."""
    weight, bias = torch.zeros(features.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = features @ weight + bias
        errors = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        value = (weights * errors).sum() / weights.sum() + ridge * (weight**2).sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def main() -> None:
    """Train, calibrate, write and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flickr8k")
    parser.add_argument("coco")
    parser.add_argument("--cache", help="file for the features of Flickr8k's training photos")
    given = parser.parse_args()
    flickr8k = read_karpathy(given.flickr8k, annotations="dataset_flickr8k.json")
    train, val = select(flickr8k, "train"), select(flickr8k, "val")
    sample = select(read_coco(given.coco, layout=2017), "train")
    cache = Path(given.cache) if given.cache else None
    if cache and cache.exists():
        features = torch.from_numpy(np.load(cache))
    else:
        features = encode(train, crops=False)[:, 0]
        if cache:
            np.save(cache, features.numpy())
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    weight, bias = fit((features - mean) / deviation, shares(train), torch.ones(len(train)), ridge=RIDGE)
    weight, bias = weight / deviation, bias - (weight * mean / deviation).sum()

    instances = read_instances(given.coco, sample).pictures
    annotated = [any(each.category == "person" for each in instances[record.image_id].instances) for record in sample]
    true = {"COCO train2017": torch.tensor(annotated) | (shares(sample) > 0), "Flickr8k val": shares(val) > 0}
    raw = {
        name: torch.sigmoid(encode(records, crops=True) @ weight + bias).mean(1)
        for name, records in (("COCO train2017", sample), ("Flickr8k val", val))
    }
    logits = torch.cat([torch.logit(each, eps=1e-4) for each in raw.values()])
    answers = torch.cat([each.float() for each in true.values()])
    weights = torch.cat([torch.full((len(each),), 1 / len(each)) for each in raw.values()])
    slope, offset = fit(logits[:, None], answers, weights, ridge=0.0)
    tensors = {"weight": weight, "bias": bias, "slope": slope, "offset": offset}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, PERSON_PROBE)
    print(f"slope {slope.item():.2f}, offset {offset.item():.2f}: {PERSON_PROBE}")
    for name, values in raw.items():
        confidence = torch.sigmoid(slope * torch.logit(values, eps=1e-4) + offset)
        for low, high in pairwise(BINS):
            inside = (confidence >= low) & (confidence < high + (high == 1))
            share = f"{true[name][inside].float().mean():.2f}" if inside.any() else "–"
            print(f"{name}: confidence {low:.1f}–{high:.1f}: {share} of {int(inside.sum())} photos have people")


if __name__ == "__main__":
    main()
