"""Write text with a language model: `captioning-sample checkpoint=PATH prime="def " temperature=0.7 length=500`."""

from typing import Any

from captioning.config import SampleConfig, entry_point


def sample_text(config: dict[str, Any]) -> None:
    """Print `prime` and the text that the model writes after it."""
    from captioning.inference import load_language_model

    model = load_language_model(config["checkpoint"], device=config["device"])
    options = {key: config[key] for key in ("length", "temperature", "top_k", "top_p", "seed")}
    print(config["prime"] + model.sample(config["prime"], **options))


main = entry_point("sample", SampleConfig, sample_text, plain=["checkpoint", "prime"])

if __name__ == "__main__":
    main()
