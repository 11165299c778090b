"""The imports that must never exist, read from the source."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "captioning"
ENTRY_POINTS = {"train", "evaluate", "prepare", "caption", "audit", "ground", "score", "compare", "sample"}
ENTRY_POINTS |= {"answer", "evaluate_answers", "report", "demo", "export", "teach"}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> dict[str, set[str]]:
    """{"models.decoder": its imports}, for every file of the package."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): imports(path) for path in PACKAGE.rglob("*.py")}


def importers(*targets: str) -> set[str]:
    def hit(name: str) -> bool:
        return any(name == target or name.startswith(f"{target}.") for target in targets)

    return {module for module, names in modules().items() if any(map(hit, names))}


def inside(module: str, *parts: str) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def test_hydra_stays_at_the_edge():
    assert importers("hydra", "omegaconf") <= {"config"} | ENTRY_POINTS


def test_lightning_stays_in_the_task_and_the_loaders():
    assert importers("lightning", "pytorch_lightning") <= {"task", "saving", "data.module"} | ENTRY_POINTS


def test_models_data_metrics_and_figures_do_not_know_one_another():
    subjects = ("models", "data", "metrics", "visualise")
    for subject in subjects:
        others = [f"captioning.{other}" for other in subjects if other != subject]
        assert not {module for module in importers(*others) if inside(module, subject)}


def test_decoding_and_objectives():
    ours = {module: names for module, names in modules().items() if inside(module, "decoding")}
    assert len(ours) > 1
    used = {name.split(".")[1] for names in ours.values() for name in names if name.startswith("captioning.")}
    assert used <= {"errors", "decoding"}
    assert "objectives" not in importers("captioning.data", "captioning.metrics")


def test_inside_models():
    assert not importers("captioning.models.decoder") & {
        "models.encoder",
        "models.conditioning",
        "models.attention",
        "models.cells",
        "models.readout",
    }
    assert "models.decoder" not in importers("captioning.models.captioner")


def test_only_extraction_and_its_users_join_encoder_and_store():
    assert importers("captioning.features.extraction") <= {"sources"} | ENTRY_POINTS


def test_scores_need_no_torch():
    needs = importers("torch")
    assert not {
        module
        for module in needs
        if inside(module, "metrics", "tokenizer", "normalizer", "results", "score", "compare")
    }


def test_nothing_imports_an_entry_point():
    assert not importers(*(f"captioning.{name}" for name in ENTRY_POINTS))


def test_this_reads_imports_at_all():
    assert "predictor" in importers("captioning.decoding") and "task" in importers("lightning")
