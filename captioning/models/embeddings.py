"""Embed words before the recurrence: by learned vectors or one-hot vectors."""

import torch
from torch import nn

from captioning.errors import ConfigError


def learned(vocabulary_size: int, embedding_size: int, *, pad: int) -> nn.Embedding:
    """E vectors of the vocabulary, from a normal distribution of variance 1/E; that of padding is zero and stays so."""
    embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=pad)
    nn.init.normal_(embedding.weight, std=embedding_size**-0.5)
    nn.init.zeros_(embedding.weight.data[pad])
    return embedding


def one_hot(vocabulary_size: int, embedding_size: int, *, pad: int) -> nn.Embedding:
    """The rows of the identity, which never learn: the recurrence's W_x holds all that is learnt of a word.

    Raises:
        ConfigError: another width than the vocabulary's.
    """
    if embedding_size != vocabulary_size:
        raise ConfigError(
            f"model/embedding=one_hot is as wide as the vocabulary ({vocabulary_size}), not {embedding_size}: "
            "set model.embedding_size=null"
        )
    return nn.Embedding.from_pretrained(torch.eye(vocabulary_size), freeze=True, padding_idx=pad)
