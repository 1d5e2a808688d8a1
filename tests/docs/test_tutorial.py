"""The tutorial notebook runs from nothing, and says what it shows."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook with its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("tutorial")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    assert {path.suffix for path in (folder / "answers").iterdir()} == {".gz", ".json", ".png"}
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    return "".join(output.get("text", "") for output in outputs)


def test_the_corrected_box_gives_the_better_mask(ran: nbformat.NotebookNode) -> None:
    before, after = map(float, re.search(r"before: (\S+), after: (\S+)", printed(ran)).groups())
    assert before == 0
    assert after > 0.8
    first, second = map(float, re.findall(r"total (\S+)", printed(ran)))
    assert second > first + 0.2


def test_it_shows_scan_answer_view_and_figure(ran: nbformat.NotebookNode) -> None:
    """All of them lie in the notebook, which stays small enough to be opened."""
    outputs = [output.get("data", {}) for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = [data["text/html"] for data in outputs if "text/html" in data]
    assert [page.partition(" ")[0] for page in pages] == ["<figure", "<figure", "<iframe"]
    assert "HU; slices" in pages[0]
    assert "the kidney with no visible lesion" in pages[1]
    assert sum("image/png" in data for data in outputs) == 1
    assert len(nbformat.writes(ran)) < 5_000_000


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
