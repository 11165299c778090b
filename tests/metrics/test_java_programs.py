"""What is sent to the Java programs and read from them, with programs that only pretend: no Java is needed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.errors import ToolError
from captioning.metrics import java


@pytest.fixture
def program(monkeypatch):
    """A stand-in for a Java program: it gives the prepared answer and records what it was asked."""
    asked = SimpleNamespace(printed=b"", errors=b"", status=0, sent=None, options=None, command=None)

    def run(command, **options):
        asked.command, asked.options = command, options
        assert options["capture_output"] is True and not options.get("check")  # the caller reports a failure itself
        asked.sent = Path(command[-1]).read_bytes() if Path(command[-1]).is_file() else options["input"]
        text = options.get("encoding")
        decode = (lambda data: data.decode()) if text else bytes
        return SimpleNamespace(stdout=decode(asked.printed), stderr=decode(asked.errors), returncode=asked.status)

    monkeypatch.setattr(java.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_the_tokenizer_gets_a_line_per_caption_and_its_punctuation_is_dropped(program):
    program.printed = "a dög , runs .  \r\n\n -lrb- b -rrb- `` ... \n".encode()
    found = java.tokenize_all([" A dög,\u2028runs. \n", "", "(B)\r\x0b“…\ud83d"])
    assert program.sent.decode() == "A dög, runs.\n\n(B) “…?"
    assert found == [["a", "dög", "runs"], [], ["-lrb-", "b", "-rrb-"]]
    assert program.command[:2] == ["/bin/java", "-Dfile.encoding=UTF-8"]
    assert program.command[2] == "-cp" and program.command[3].endswith(java.TOKENIZER)
    assert program.command[4:7] == ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    program.printed = b"a\nb\n"
    assert java.tokenize_all(["a", "b"]) == [["a"], ["b"]]


@pytest.mark.parametrize(("status", "printed"), [(1, b"a\nb\n"), (0, b"a"), (1, b"")])
def test_a_tokenizer_that_fails(program, status, printed):
    program.status, program.printed, program.errors = status, printed, b"first\nlast line\n\n"
    with pytest.raises(ToolError, match=r"^the Java tokenizer failed \(last line\): .*metrics\.tokenizer=ptb$"):
        java.tokenize_all(["a", "b"])


def test_meteor_is_asked_with_its_settings(program):
    program.printed = (" ".join(["1"] * 23) + "\n").encode() * 2
    counts = java.meteor_counts([["a"], ["b ||| c", "d"]], ["e", "f\u2028g"])
    assert program.sent == "SCORE ||| a ||| e\nSCORE ||| b c ||| d ||| f g\n"
    assert program.command[1:3] == ["-jar", "-Xmx2G"] and program.command[3].endswith(java.METEOR)
    assert program.command[4:] == ["-", "-", "-stdio", "-l", "en", "-norm"]
    assert (program.options["encoding"], program.options["errors"]) == ("utf-8", "replace")
    assert counts.shape == (2, 23) and counts[:, 20].tolist() == [0, 0]  # one chunk of one word on both sides
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        java.meteor_counts([["a"], ["b"]], ["e"])


@pytest.mark.parametrize(
    ("errors", "printed", "told"),
    [
        (b"a\nfrom errors\n", b"x\nprinted\n", "from errors"),
        (b"", b"x\nprinted\n", "printed"),
        (b"", b"", "exit status 3"),
    ],
)
def test_a_meteor_that_breaks_off(program, errors, printed, told):
    program.status, program.errors, program.printed = 3, errors, printed
    with pytest.raises(ToolError, match=rf"^METEOR's Java program failed \({told}\): .*metrics\.meteor=false$"):
        java.meteor_counts([["a"]], ["e"])


def test_too_few_statistics_are_told(program):
    program.printed = (" ".join(["1"] * 22) + "\n").encode()
    with pytest.raises(ToolError, match=r"failed \(1 1 1"):
        java.meteor_counts([["a"]], ["e"])
    program.printed = (" ".join(["1"] * 23) + "\n").encode()
    with pytest.raises(ToolError, match="METEOR's Java program failed"):
        java.meteor_counts([["a"], ["b"]], ["e", "f"])


def test_spice_says_where_its_models_go(program):
    with pytest.raises(ToolError) as caught:
        java.spice({1: ["a"]}, {1: "a"})
    folder = Path(java.jar(java.TOKENIZER)).parents[1] / "spice" / "lib"
    assert folder.parent.parent.name == "pycocoevalcap"
    assert str(caught.value) == (
        "SPICE needs stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar (400 MB) in "
        f"{folder}: download {java.SOURCE} and unpack them there"
    )
    with pytest.raises(ToolError, match=r"nothing\.jar is missing\. Run: pip install .*pycocoevalcap"):
        java.jar("nothing.jar")


def test_spice_runs_where_its_models_are(program, monkeypatch):
    from pycocoevalcap.spice import spice

    class Spice:
        def compute_score(self, truths, results):
            assert truths == {0: ["a"], 1: ["b", "c"]} and results == {0: ["x"], 1: ["y"]}
            return 0.0, [{"All": {"f": 0.25}}, {"All": {"f": 0.75}}]

    monkeypatch.setattr(spice, "Spice", Spice)
    monkeypatch.setattr(java, "MODELS", (java.TOKENIZER,))  # a file that is there
    assert java.spice({"i": ["a"], 7: ["b", "c"]}, {7: "y", "i": "x"}).tolist() == [0.25, 0.75]
