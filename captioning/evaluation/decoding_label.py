"""Build short labels for decoding settings, for example `beam5`."""

import inspect
from collections.abc import Mapping
from typing import Any

from captioning.config import locate

# How arguments appear in the label. Arguments with the search's default value are left out.
LABELS = {
    "diversity": "_lambda{:g}",
    "temperature": "_t{:g}",
    "top_k": "_k{}",
    "top_p": "_p{:g}",
    "length_normalization": "_length{:g}",
    "length_penalty": "_gnmt{:g}",
    "min_length": "_min{}",
    "max_length": "_max{}",
    "no_repeat_ngram": "_ngram{}",
    "avoid": "_avoid-{}",
    "allow": "_allow-{}",
    "require": "_require-{}",
    "avoid_endings": "_noend-{}",
}


def decoding_name(node: Mapping[str, Any]) -> str:
    """Return a short label for a decoding configuration.

    Examples: "greedy", "beam5", "diverse6x3" (beams × groups), "sample_t0.7", "consensus5of15+40" (the candidates are 5
    of 15 beams, and 40 samples), "ensemble2_beam5" (two checkpoints). All other arguments that change the captions
    follow: "beam5_length0.7_ngram3_noend-a-the".

    Args:
        node: the configuration `decoding`: `_target_` and the search's arguments, and `checkpoints` of an ensemble.
    """
    parameters = inspect.signature(locate(node["_target_"])).parameters
    taken = {name: parameter.default for name, parameter in parameters.items()}
    values = taken | dict(node)
    if values.get("length_penalty"):
        values["length_normalization"] = taken["length_normalization"]  # the penalty overrides it
    kind = node["_target_"].rpartition(".")[2].removesuffix("_search")
    beams = str(values.get("beam_size", "")) + (f"x{values['groups']}" if "groups" in values else "")
    if "finalists" in values:
        beams = (f"{values['finalists']}of{beams}+" if values["finalists"] else "") + str(values["samples"])
    name = kind.removesuffix("_beam") + beams
    for key, label in LABELS.items():
        value = values.get(key)
        if key in taken and value != taken[key] and not (isinstance(value, list) and not value):
            name += label.format("-".join(map(str, value)) if isinstance(value, list) else value)
    others = node.get("checkpoints")
    return f"ensemble{1 + len(others)}_{name}" if others else name
