"""Run commands and Python code, each in a forked process that has the libraries imported already.

The server reads one JSON object per line on its input: {"cwd", "output", "seconds", "module", "arguments"} for a
command or {"cwd", "output", "seconds", "code"} for Python code. It writes the exit status of each as one line.
Importing torch, Lightning and hydra takes seconds, and the pages of the documentation have hundreds of commands.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRELOADED = ["torch", "torchvision", "lightning.pytorch", "hydra.main", "matplotlib.pyplot", "torch.utils.tensorboard"]
PRELOADED += ["pycocoevalcap.cider.cider"]


class ForkServer:
    """A running server; a context manager."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def command(self, name: str, arguments: Sequence[str], cwd: Path, *, seconds: int = 300) -> tuple[int, str]:
        """Run `captioning-NAME arguments` and return its exit status and its output."""
        module = "captioning" + (f".{name.replace('-', '_')}" if name else ".__main__")
        return self._ask({"module": module, "arguments": list(arguments)}, cwd, seconds)

    def python(self, code: str, cwd: Path, *, seconds: int = 300) -> tuple[int, str]:
        """Run Python code as a script in the folder; return its exit status and its output."""
        return self._ask({"code": code}, cwd, seconds)

    def _ask(self, job: dict[str, Any], cwd: Path, seconds: int) -> tuple[int, str]:
        output = cwd / ".output"
        job |= {"cwd": str(cwd), "output": str(output), "seconds": seconds}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), output.read_text(encoding="utf-8", errors="replace")


def run(job: dict[str, Any]) -> None:
    """Run one job in this process."""
    if "module" in job:
        name = job["module"].rpartition(".")[2].replace("_", "-")
        sys.argv = [f"captioning-{name}" if name != "--main--" else "captioning", *job["arguments"]]
        sys.path[0] = os.path.dirname(sys.executable)  # as in a console script
        importlib.import_module(job["module"]).main()
    else:
        sys.path[0] = job["cwd"]
        exec(compile(job["code"], "page", "exec"), {"__name__": "__main__"})


def child(job: dict[str, Any]) -> int:
    """Run one job with its output in a file, and return its exit status."""
    signal.alarm(job["seconds"])
    os.chdir(job["cwd"])
    file = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    try:
        run(job)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def serve() -> None:
    """Answer the requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # else each forked process goes through these objects, and copies their memory
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
