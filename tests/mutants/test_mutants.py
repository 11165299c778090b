"""The listed faults fit the source, and the runner tells a fault that a test notices from one that survives."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import CodeType

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import run as runner  # noqa: E402

sys.path.remove(str(HERE))
LISTED, UNUSABLE = runner.listed_faults(ROOT)


def substance(code: CodeType) -> tuple:
    """What a compiled file does, whatever its lines."""
    constants = (substance(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, *constants


def test_every_old_text_occurs_exactly_once():
    assert UNUSABLE == []


def test_every_fault_compiles_and_differs():
    sources = {name: (ROOT / name).read_bytes() for name in {fault.file for _, fault in LISTED}}
    compiled = {name: substance(compile(source, name, "exec")) for name, source in sources.items()}
    for _, fault in LISTED:
        mutated = compile(fault.planted(sources[fault.file]), fault.file, "exec")
        assert substance(mutated) != compiled[fault.file], fault


def test_every_named_test_exists():
    for name, fault in LISTED:
        for test in fault.tests:
            path, *names = test.split("::")
            assert (ROOT / path).exists(), f"{name}: {fault} names {path}"
            for function in names:
                assert f"def {function.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), test


def test_no_fault_is_listed_twice():
    twice = [key for key, count in Counter((f.file, f.start, f.old, f.new) for _, f in LISTED).items() if count > 1]
    assert twice == []


def test_the_list_is_long():
    assert len([fault for _, fault in LISTED if not fault.equivalent]) >= 150


PACKAGE = """
def clipped(x, low, high):
    return max(low, min(x, high))
"""
TESTS = """
import os
import subprocess
import sys
from captioning.numbers import clipped

def test_clipped():
    assert (clipped(3, 0, 2), clipped(-3, 0, 2)) == (2, 0)

def test_another_process_has_the_fault_too():
    code = "from captioning.numbers import clipped; assert clipped(1, 0, 2) == 1"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_it_ends():
    assert clipped(7, 0, 9) == 7
"""
LIST = """
[[fault]]
file = "captioning/numbers.py"
old = "(low, "
new = "(high, "
equivalent = "a wrong claim"

[[fault]]
file = "captioning/numbers.py"
old = "max(low,"
new = "max(0,"

[[fault]]
file = "captioning/numbers.py"
old = "return max"
new = "import os; os.abort(); max"

[[fault]]
file = "captioning/numbers.py"
old = "high))"
new = "high if low == 0 else 1))"
equivalent = "low is always 0"

[[fault]]
file = "captioning/numbers.py"
old = "no such text"
new = ""
"""


@pytest.fixture
def made_up(tmp_path):
    """A package with a test and a list of faults, in a repository of its own."""
    files = {"captioning/__init__.py": "", "captioning/numbers.py": PACKAGE, "tests/test_numbers.py": TESTS}
    files |= {"tests/mutants/list.toml": LIST, "setup.cfg": "[tool:pytest]\nmarkers =\n    slow: unused\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def outcome(root: Path, *arguments: str) -> tuple[int, str]:
    code = "import pathlib, run, sys; root = pathlib.Path(sys.argv[1]); warm = ('pytest', 'hypothesis'); "
    code += "sys.exit(run.main(sys.argv[2:], root=root, warm=warm))"
    command = [sys.executable, "-c", code, str(root), *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_listed_fault_is_killed_or_survives(made_up):
    status, text = outcome(made_up)
    assert status == 1
    lines = text.splitlines()
    assert "killed, though listed as equivalent: captioning/numbers.py:3  (low,  ->  (high," in lines
    assert "SURVIVED: captioning/numbers.py:3  max(low,  ->  max(0," in lines
    assert any("killed" in line and "os.abort()" in line and line.endswith("crash") for line in lines)
    assert any("equivalent" in line and "high if low == 0 else 1" in line for line in lines)
    assert lines[-1] == "error: list.toml: not once but 0 times in captioning/numbers.py: no such text"
    assert "2 killed, 1 SURVIVED, 1 equivalent" in text
    assert (made_up / "captioning/numbers.py").read_text() == PACKAGE


def test_generated_faults_are_killed(made_up):
    status, text = outcome(made_up, "--generated", "captioning/numbers.py", "--tests", "tests/test_numbers.py")
    assert status == 0, text
    assert "2 killed" in text
    assert "2 faults" in text


def test_tests_that_fail_without_a_fault_stop_the_run(made_up):
    (made_up / "tests/test_numbers.py").write_text("def test():\n    assert 1 == 2\n")
    status, text = outcome(made_up, "--generated", "captioning/numbers.py")
    assert status == 1
    assert "error: tests" in text and " fails without any fault: tests/test_numbers.py::test" in text
    assert "killed" not in text
