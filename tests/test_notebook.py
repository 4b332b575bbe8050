"""The notebook: the file's `# %%` cells run one by one in a real Jupyter kernel."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

SCRIPT = Path(__file__).parents[1] / "microgrpo.py"
SECTIONS = ["Game", "Environment", "Policy", "GRPO", "Train", "Run"]


def test_the_file_is_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell runs after the ones above it; progress keeps to one line; the files are saved."""
    source = SCRIPT.read_text(encoding="utf-8").replace("M: int = 2000", "M: int = 20")
    notebook = jupytext.reads(source, fmt="py:percent")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    titles = [cell.metadata.get("title") for cell in cells]
    assert titles[-len(SECTIONS) :] == SECTIONS

    monkeypatch.chdir(tmp_path)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert not any(cell.outputs for cell in cells[:-1])
    text = "".join(output.text for output in cells[-1].outputs if output.name == "stdout")
    assert "stderr" not in {output.name for output in cells[-1].outputs}
    assert text.count("mini-batch ") == 20  # every one of them is shown,
    assert text.count("\r") == 19  # each over the one before
    assert "🌊" in text
    assert (tmp_path / "battleship_policy.npz").exists()
