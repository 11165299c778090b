"""Write the model card of an exported checkpoint in Markdown: model, encoder, data, scores and the author's text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from captioning.checkpoints.encoder_settings import encoder_names, input_text, named_weights

_PARTS = ("attention", "recurrence", "cell", "conditioning", "readout")  # parts of a model that the card names
TOOLS = {
    "image_captioning": "captioning-caption photo.jpg --checkpoint {name}",
    "vqa": 'captioning-answer checkpoint={name} image=photo.jpg question="…"',
    "language_model": "captioning-sample checkpoint={name}",
}


def make_card(name: str, document: Mapping[str, Any]) -> str:
    """Return the Markdown card for the content of NAME.json.

    Args:
        name: name of the exported checkpoint.
        document: content of NAME.json; the card includes its `scores` and its text `card`, if present.
    """
    parts = [f"# {name}", _table(["", ""], _facts(document))]
    parts += ["    " + TOOLS[document["task"]].format(name=name)]
    if tags := document.get("tags"):
        parts += [
            f"This command guides the captions by tags (`tags={tags}`); with `tags=null` the model captions alone."
        ]
    if scores := document.get("scores"):
        intervals = scores["intervals"]
        rows = [(key, f"{value:.3f}", _interval(intervals.get(key))) for key, value in scores["values"].items()]
        parts += ["## Scores", f"{scores['of']}.", _table(["Score", "Value", "95 % interval"], rows)]
    if text := document.get("card"):
        parts.append(text.strip())
    return "\n\n".join(parts) + "\n"


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config, weights = document["config"], document["weights"]
    model = config["model"]
    yield "Parts", ", ".join(f"{key} `{_part(model[key])}`" for key in _PARTS if isinstance(model.get(key), dict))
    yield "Sizes", ", ".join(f"`{key}` {model[key]}" for key in ("width", "embedding_size", "layers") if key in model)
    if encoder := config.get("encoder"):
        transform = config["transform"]
        yield "Encoder", encoder_names(encoder)
        named = ", ".join(map(str, named_weights(encoder)))
        source = "in this model's file" if weights["with encoder"] else f"`encoder.weights={named}`"
        yield "Encoder weights", f"{source}; their hash is {document['fingerprint']}"
        yield "Encoder input", input_text(transform)
    yield "Vocabulary", f"{len(document['vocabulary']):,} entries"
    images = [f"{count:,} {split} images" for split, count in document.get("images", {}).items()]
    yield "Data", ", ".join([str(config["data"].get("name")), *images])
    yield "Weights", f"{weights['numbers']:,} numbers, {weights['dtype']}, {weights['bytes'] / 1e6:.2f} MB"


def _table(head: Sequence[str], rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _part(settings: Mapping[str, Any]) -> str:
    """Return a part's class with its settings, such as `LookFirst(gate=True, word=True)`."""
    own = [
        f"{key}={value}"
        for key, value in settings.items()
        if not key.startswith("_") and not isinstance(value, dict | list)
    ]
    return settings["_target_"].rpartition(".")[2] + (f"({', '.join(own)})" if own else "")
