"""The documents' notebooks: how they are executed, by the tests and to store their outputs.

``python -m tests.docs.notebooks`` stores them, as ``make notebooks`` does.
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: NotebookNode, scratch: Path) -> NotebookNode:
    """The notebook with new outputs, executed by the package beside it and on one core.

    Args:
        notebook: It is changed.
        scratch: Folder for the files of the kernel.

    Raises:
        CellExecutionError: A cell fails.
    """
    # Sockets are files: no port that another kernel may take first.
    kernel = {"transport": "ipc", "connection_file": str(scratch / "kernel.json")}
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=240, record_timing=False, config=Config({"KernelManager": kernel})
    )
    search = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    client.execute(env=os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(scratch)})
    # The version of whatever Python executed it is no part of a notebook.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    for path in NOTEBOOKS:
        with TemporaryDirectory() as folder:
            nbformat.write(execute(read(path), Path(folder)), path)
