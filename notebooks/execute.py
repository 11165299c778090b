"""Execute all notebooks, each in a new kernel, and save copies with their outputs.

    python notebooks/execute.py OUTPUT [NAME=VALUE ...]

OUTPUT is the folder for the copies; it may be this folder. NAME=VALUE replaces the line `NAME = ...` in the first code
cell, which has the settings of a notebook; VALUE is Python code. The program stops with status 1 if a cell fails.
"""

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
SECONDS = 900  # time limit per cell
MOST = 300_000  # largest size of an executed notebook in bytes


def execute(path: Path, output: Path, settings: dict[str, str]) -> None:
    """Execute one notebook in the folder of this file, and write it with its outputs to `output`."""
    start = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in settings.items():
        first.source = re.sub(rf"^{name} = .*$", lambda _: f"{name} = {value}", first.source, flags=re.MULTILINE)  # noqa: B023
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    client.extra_arguments = ["--log-level=ERROR"]
    client.record_timing = False
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    text = nbformat.writes(notebook)
    (output / path.name).write_text(text + "\n", encoding="utf-8")
    size = len(text.encode())
    warning = f" (above the limit of {MOST / 1000:.0f} kB)" if size > MOST else ""
    print(f"{path.name}: {time.perf_counter() - start:.0f} s, {size / 1000:.0f} kB{warning}", flush=True)


def main(arguments: list[str]) -> None:
    """Execute the notebooks with the arguments OUTPUT and NAME=VALUE."""
    if not arguments or any("=" not in each for each in arguments[1:]):
        sys.exit("error: expected a folder and settings. Run: python notebooks/execute.py runs/notebooks 'FIRST=0'")
    output, settings = Path(arguments[0]), dict(each.split("=", 1) for each in arguments[1:])
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        try:
            execute(path, output, settings)
        except CellExecutionError as error:
            sys.exit(f"error: {path.name}: a cell failed: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
