"""Small language models, and a run of one."""

import torch
from toys import CELLS

from captioning.config import check, compose
from captioning.config.schemas import TrainConfig
from captioning.models import LinearReadout, NoAttention, NoConditioning, build_captioner, learned, one_hot
from captioning.train import train

V, TOKENS = 9, 41  # TOKENS - 1 targets: 3 streams of 14, the last one two short


def make(cell="lstm", *, layers=2, embedding=learned, width=5):
    model = build_captioner(
        feature_size=0,
        grid=False,
        vocabulary_size=V,
        cell=CELLS[cell],
        attention=NoAttention,
        conditioning=NoConditioning,
        readout=LinearReadout,
        embedding=embedding,
        embedding_size=None if embedding is one_hot else 4,
        width=width,
        layers=layers,
        dropout=0.0,
    ).double()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.7)  # so that what lies many steps back matters
    return model


QUIET = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]


def run(*overrides: str) -> None:
    train(check(compose("train", [*QUIET, *overrides]), TrainConfig))
