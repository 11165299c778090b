"""Check what other programs read: CITATION.cff, the GitHub workflow and issue forms, pre-commit and setup.cfg."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import captioning

ROOT = Path(__file__).parents[1]
SCHEMAS = {
    "CITATION.cff": "vendor.citation-file-format",
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
}


def valid(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_follows_its_schema(name):
    checked = valid(SCHEMAS[name], ROOT / name)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_misspelled_workflow_key_is_found(tmp_path):
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    (tmp_path / "ci.yml").write_text(text.replace("runs-on:", "runs-onn:"), encoding="utf-8")
    assert valid(SCHEMAS[".github/workflows/ci.yml"], tmp_path / "ci.yml").returncode != 0


def test_the_workflow_has_the_steps_of_the_continuous_integration_script():
    script = re.findall(r"^make ([\w-]+)", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    steps = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    assert [re.match(r"make ([\w-]+)", step)[1] for step in steps] == script
    oldest = configparser.ConfigParser()
    oldest.read(ROOT / "setup.cfg", encoding="utf-8")
    versions = jobs["test"]["strategy"]["matrix"]["python"]
    assert len(versions) >= 2 and f">={versions[0]}" == oldest["options"]["python_requires"]
    assert "persist-credentials: false" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == captioning.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[\d.]*)\] - (\S+)$", changelog, re.MULTILINE)
    assert newest.groups() == (captioning.__version__, str(citation["date-released"]))


def test_pre_commit_runs_the_ruff_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        program, verb = hook["entry"].split()[:2]
        assert program == ".venv/bin/ruff" and f"$(BIN)/ruff {verb}" in makefile
