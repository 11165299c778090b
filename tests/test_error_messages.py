"""Every error of the package names the file or key at fault, and says what to type.

The messages that the tests provoke are checked at the end of the test run (conftest.py). Here the messages in the
source are checked, and the rules themselves.
"""

import os
import subprocess
import sys

import pytest
from error_messages import EXCEPTIONS, PACKAGE, ROOT, Message, Recorder, offences, offenders, templates

from captioning.errors import ConfigError, DataError, must_be

TEMPLATES = [message for path in sorted(PACKAGE.rglob("*.py")) for message in templates(path)]
GOOD = """
data.root=data/coco has no dataset_coco.json. Run: captioning-prepare data=coco download=true
seed must be int, not 'x'
photos/a.jpg is damaged or cut short: copy it again
there is no setting 'data.rot': did you mean 'data.root'?
runs/soft/config.yaml: give the config.yaml of a run
dtype=int8 must be one of float16, float32
images: 3 files are unreadable. To leave them out: skip_unreadable=true
decoding.require contains ids that are never written: remove them from decoding.require
"""
BAD = {
    "give another one": "names no file or key",
    "3 images are unreadable: repair them": "names no file or key",
    "data/own/captions.csv is damaged": "does not say what to do",
    "data.root=x has no captions": "does not say what to do",
    "model.width: None is not a number: give a number": "talks of Python",
    "data.files: PosixPath('a'): give a text": "talks of Python",
    "seed must be int, not <class 'str'>": "talks of Python",
    "output=x: give another folder:": "ends in the middle",
    "output=x: give another folder\nbecause this one is full": "more than one line",
    "runs/a leaves scores.json: it is told of another file; set output=": "who says what to whom",
    "metrics.bootstrap=0 gives a mean of .219: set it to 1000": "leading zero",
    "the picture a.jpg is empty: delete it": "image",
}


@pytest.mark.parametrize("path", sorted({message.path for message in TEMPLATES}))
def test_errors_name_what_is_wrong_and_say_what_to_do(path):
    assert not offenders([message for message in TEMPLATES if message.path == path])


def test_the_source_has_hundreds_of_messages():
    assert len(TEMPLATES) > 350 and sum("{" in message.text for message in TEMPLATES) > 250


def test_exceptions_are_few_have_a_reason_and_are_needed():
    assert len(EXCEPTIONS) <= 10
    for (path, start), reason in EXCEPTIONS.items():
        assert len(reason.split()) > 4
        if found := [each for each in TEMPLATES if each.path == path and each.text.startswith(start)]:
            assert [each for each in found if list(offences(each))]
        else:  # the message begins with a name that a caller gives
            assert any(f'name="{start.strip()}"' in file.read_text("utf-8") for file in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("text", GOOD.strip().splitlines())
def test_good_messages_pass(text):
    assert not list(offences(Message("captioning/errors.py", 1, text)))


@pytest.mark.parametrize("text", BAD)
def test_bad_messages_are_found(text):
    (offence, *_) = [each for each in offences(Message("captioning/errors.py", 1, text)) if BAD[text] in each]
    assert BAD[text] in offence


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ('raise DataError(f"{path}: damaged")', "does not say what to do"),
        ('raise DataError("x" if a else "no captions here")', "names no file or key"),
        ('raise DataError(f"{len(images)} images are too many: remove some")', "names no file or key"),
        ('why = f"{path} is damaged"\n    raise DataError(why)', "does not say what to do"),
        ('return CheckpointError(f"{path}: " + "no weights")', "does not say what to do"),
        (
            'try: f()\n    except OSError as error: raise DataError(f"{path} failed: {error}")',
            "does not say what to do",
        ),
        ('try: f()\n    except DataError as error: raise DataError(f"{path} failed: {error}")', None),
        ('raise DataError(f"{path} is damaged{advice}")', None),
        ('raise ValueError("no")', None),
    ],
)
def test_messages_are_found_in_the_source(source, offence, tmp_path, monkeypatch):
    monkeypatch.setattr("error_messages.ROOT", tmp_path)
    (tmp_path / "part.py").write_text(f"def part(path, images, a, f, advice):\n    {source}\n")
    found = [each for message in templates(tmp_path / "part.py") for each in offences(message)]
    assert (offence in found) if offence else not found


def test_what_a_run_constructs_is_recorded_unless_it_becomes_part_of_another():
    recorder = Recorder()
    recorder.start()
    try:
        with pytest.raises(ConfigError):
            must_be("seed", 3, least=4)
        error = DataError("made by a test, not by the package")
    finally:
        recorder.stop()
    assert [message.text for message in recorder.here] == ["seed must be at least 4, not 3"]
    assert recorder.here[0].path == "captioning/errors.py" and str(error).startswith("made")
    frame = recorder.here[0]
    recorder.here.append(frame._replace(text="data.csv: x"))
    recorder.reset()
    assert {message.text for message in recorder.found} == {"seed must be at least 4, not 3", "data.csv: x"}


@pytest.mark.parametrize("processes", [[], ["-n", "1"]])
def test_a_run_of_tests_fails_if_they_provoke_a_bad_message(processes, tmp_path):
    """A check that failed for good messages too would fail this very run."""
    message, test = "it broke", tmp_path / "test_it.py"
    code = f"from captioning.errors import DataError; DataError({message!r})"
    test.write_text(f"def test_it():\n    exec(compile({code!r}, {str(PACKAGE / 'errors.py')!r}, 'exec'))\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *processes, str(test)]
    paths = [ROOT / "tests", ROOT / "tests" / "helpers", ROOT]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "1 passed" in done.stdout, done.stdout + done.stderr
    assert "1 error messages of 1 do not help a user" in done.stdout and message in done.stdout
