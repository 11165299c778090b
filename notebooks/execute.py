"""Executes the notebooks from a clean state: `python notebooks/execute.py OUTPUT [NAME=VALUE …]`, a kernel each.

NAME=VALUE replaces that line of a notebook's first code cell, its settings; VALUE is Python. Executed copies go to the
folder OUTPUT (which may be this one). The first cell that fails ends it with a failing status.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
SECONDS = 900  # that a cell may take
MOST = 300_000  # bytes of an executed notebook


def execute(path: Path, output: Path, settings: dict[str, str]) -> None:
    """Runs one notebook in its own folder and writes it, outputs kept, to `output`."""
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
    print(f"{path.name}: {size / 1000:.0f} kB" + ("  more than it should be" if size > MOST else ""), flush=True)


def main(arguments: list[str]) -> None:
    """OUTPUT, then settings."""
    if not arguments or any("=" not in each for each in arguments[1:]):
        sys.exit("error: give a folder for the executed notebooks, then NAME=VALUE of settings")
    output, settings = Path(arguments[0]), dict(each.split("=", 1) for each in arguments[1:])
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        try:
            execute(path, output, settings)
        except CellExecutionError as error:
            sys.exit(f"error: {path.name}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
