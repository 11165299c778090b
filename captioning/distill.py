"""Write soft targets for knowledge distillation: `captioning-distill A.ckpt B.ckpt data=flickr8k output=FILE.npz`."""

from pathlib import Path
from typing import Any

from captioning.config import DistillConfig, build, entry_point


def distill(config: dict[str, Any]) -> None:
    """Write the teachers' mean probabilities of the next word, for every word of the training captions.

    Raises:
        ConfigError: a setting is out of range, or output is a folder.
    """
    from captioning.data import select, tokenize_captions
    from captioning.errors import ConfigError, must_be
    from captioning.evaluation import sources_of
    from captioning.inference import load_all, soft_targets_of, write_soft_targets
    from captioning.io import make_folder

    must_be("words", config["words"], least=1)
    must_be("batch_size", config["batch_size"], least=1)
    data, output = config["data"], Path(config["output"])
    paths = [config["checkpoint"]] if isinstance(config["checkpoint"], str) else config["checkpoint"]
    if not paths:
        raise ConfigError("checkpoint= is empty: give a checkpoint, or a list of checkpoints")
    if output.is_dir():
        raise ConfigError(f"output={output} is a folder: give a file name that ends in .npz")
    make_folder(output.parent)
    predictor = load_all(paths[0], paths[1:], device=config["device"])
    named = {"name": data["name"], "skip_unreadable": data["skip_unreadable"]}
    training = select(build(data["reader"]), "train")
    limit = predictor.max_length if data["max_length"] is None else data["max_length"]
    assert limit is not None  # every captioner's checkpoint has the limit of its training
    if longest := predictor.captioner.longest:
        longest.check("data.max_length", limit, extra=1)
    sources, records = sources_of(predictor, build(config["features"]), training, **named)
    soft_targets = soft_targets_of(
        predictor,
        sources,
        records,
        tokenize_captions(records, predictor.vocabulary.tokenizer),
        max_length=limit,
        words=config["words"],
        batch_size=config["batch_size"],
    )
    size = write_soft_targets(output, soft_targets, predictor.vocabulary)
    captions, tokenizer = len(soft_targets["keys"]), predictor.vocabulary.tokenizer
    words = f"{len(soft_targets['ids']) - captions} {tokenizer.unit}"  # besides one <end> per caption
    teachers = "1 checkpoint" if len(paths) == 1 else f"{len(paths)} checkpoints"
    size_and_file = f"{size / 1e6:.0f} MB: {output}"
    print(f"soft targets for {captions} captions ({words}, and <end> of each) from {teachers}, {size_and_file}")


main = entry_point("distill", DistillConfig, distill, plain=["checkpoint..."])

if __name__ == "__main__":
    main()
