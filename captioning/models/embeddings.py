"""Embed words before the recurrence, as learned vectors or as one-hot vectors."""

import torch
from torch import nn

from captioning.errors import ConfigError


def learned(vocabulary_size: int, embedding_size: int, *, pad: int) -> nn.Embedding:
    """Build a learned word embedding.

    The vectors start from a normal distribution with variance 1/E. The vector of the padding token is zero and stays
    zero.

    Args:
        vocabulary_size: V.
        embedding_size: E.
        pad: Id of the padding token.
    """
    embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=pad)
    nn.init.normal_(embedding.weight, std=embedding_size**-0.5)
    nn.init.zeros_(embedding.weight.data[pad])
    return embedding


def one_hot(vocabulary_size: int, embedding_size: int, *, pad: int) -> nn.Embedding:
    """Build a one-hot word embedding: the rows of the identity matrix, which are not trained.

    All learned word parameters are then in the recurrence's input matrix W_x.

    Args:
        vocabulary_size: V.
        embedding_size: E, which must equal V.
        pad: Id of the padding token.

    Raises:
        ConfigError: `embedding_size` is not `vocabulary_size`.
    """
    if embedding_size != vocabulary_size:
        raise ConfigError(
            f"model/embedding=one_hot needs the vocabulary's size ({vocabulary_size}) as model.embedding_size, not "
            f"{embedding_size}. Set model.embedding_size=null"
        )
    return nn.Embedding.from_pretrained(torch.eye(vocabulary_size), freeze=True, padding_idx=pad)
