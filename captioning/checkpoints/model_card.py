"""Write the model card of an exported checkpoint in Markdown: model, encoder, data, scores and the author's text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PARTS = ("attention", "recurrence", "cell", "conditioning", "readout")  # parts of a model that the card names
TOOLS = {
    "image_captioning": "captioning-caption checkpoint={name} images=[photo.jpg]",
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
    if scores := document.get("scores"):
        intervals = scores["intervals"]
        rows = [(key, f"{value:.3f}", _interval(intervals.get(key))) for key, value in scores["values"].items()]
        parts += ["## Scores", f"{scores['of']}.", _table(["Score", "", "95 %"], rows)]
    if text := document.get("card"):
        parts.append(text.strip())
    return "\n\n".join(parts) + "\n"


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config, weights = document["config"], document["weights"]
    model = config["model"]
    named = [_last(model[key]["_target_"]) for key in _PARTS if isinstance(model.get(key), dict)]
    sizes = [f"{key.replace('_', ' ')} {model[key]}" for key in ("width", "embedding_size", "layers") if key in model]
    yield "Model", ", ".join(named + sizes)
    if encoder := config.get("encoder"):
        transform = config["transform"]
        source = "in the file" if weights["with encoder"] else f"`{encoder.get('weights')}`"
        yield "Encoder", f"{encoder.get('name')}, weights {source}, fingerprint {document['fingerprint']}"
        yield "Image size", f"{transform.get('size')} × {transform.get('size')}, {transform.get('fit')}"
    yield "Vocabulary", f"{len(document['vocabulary'])} entries"
    images = [f"{count} {split} images" for split, count in document.get("images", {}).items()]
    yield "Data", ", ".join([str(config["data"].get("name")), *images])
    yield "Weights", f"{weights['numbers']} numbers, {weights['dtype']}, {weights['bytes'] / 1e6:.2f} MB"


def _table(head: Sequence[str], rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _last(target: str) -> str:
    return target.rpartition(".")[2]
