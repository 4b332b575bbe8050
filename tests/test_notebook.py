"""The notebook: the file's `# %%` cells, as people run, run again and edit them in Jupyter."""

from collections.abc import Callable, Iterator
from inspect import getsource
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from test_train import Bandit, softmax

Kernel = Callable[[str], str]

SOURCE = (Path(__file__).parents[1] / "microgrpo.py").read_text(encoding="utf-8")
NOTEBOOK = jupytext.reads(SOURCE.replace("M: int = 1300", "M: int = 3"), fmt="py:percent")
CELLS = [cell.source for cell in NOTEBOOK.cells]
IMPORTS, _, _, GRPO, ROLLOUT, TRAIN, _ = CELLS

TRAIN_BRIEFLY = """
config = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy, M=1)
optimizer = AdamWOptimizer(neural_battleship_policy_init())
_ = train_grpo(optimizer, config, report=lambda *arguments: print(float(arguments[-1])))
"""

OWN_GAME = f"""
{getsource(Bandit)}
{getsource(softmax)}
optimizer = AdamWOptimizer({{"logits": np.zeros(5)}}, learning_rate=0.1)
θ_star, _ = train_grpo(optimizer, GRPOConfig(Bandit, softmax, M=30), report=lambda *_: None)
print(softmax(θ_star, np.zeros(1))[4])
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Start a kernel, which runs what it is given and returns its output; nothing may fail."""
    resources = {"metadata": {"path": tmp_path_factory.mktemp("notebook")}}
    client = NotebookClient(NOTEBOOK, timeout=600, kernel_name="python3", resources=resources)
    cell = NOTEBOOK.cells[0]

    def execute(source: str) -> str:
        cell.source = source
        outputs = client.execute_cell(cell, 0).outputs
        assert {output.get("name") for output in outputs} <= {"stdout"}  # and nothing on stderr
        return "".join(output.text for output in outputs)

    with client.setup_kernel():
        yield execute


def test_each_cell_begins_with_its_title() -> None:
    """In its text too: jupytext hides what follows `# %%` in the cell's metadata."""
    titles = ["Environment", "Policy", "GRPO", "Rollout", "Train", "Run"]
    for cell, title in zip(NOTEBOOK.cells[1:], titles, strict=True):
        assert cell.metadata["title"] == title
        assert title.lower() in cell.source.partition("\n")[0].lower()


def test_all_cells_run_and_any_of_them_again(kernel: Kernel) -> None:
    """Silently but for the last. Objects made before a cell is run again still work."""
    *silent, run = [kernel(cell) for cell in CELLS]
    assert not any(silent)
    assert "3/3" in run
    assert "🚢" in run
    assert "🚢" not in "".join(run.split()[-5:])  # the whole fleet is hit
    kernel(TRAIN_BRIEFLY)
    for cell in CELLS:
        kernel(cell)
        kernel("_ = train_grpo(optimizer, config)")
        kernel(TRAIN_BRIEFLY)


def test_an_edited_objective_takes_effect(kernel: Kernel) -> None:
    """Once its cell and the Train cell, where it is a default argument, are run again."""
    constant = "\ngrpo_objective = lambda θ, batch, config: 0 * anp.sum(θ['W1'])"
    for cell in (*CELLS[:-1], GRPO + constant, TRAIN):
        kernel(cell)
    assert float(kernel(TRAIN_BRIEFLY)) == 0  # the norm of the gradient


@pytest.mark.parametrize("first", ["", "from __future__ import annotations"])
def test_a_game_of_ones_own_needs_no_battleship(kernel: Kernel, first: str) -> None:
    """All cells but environment, policy and run; also in a kernel that postpones annotations."""
    for cell in ("%reset -f", first, IMPORTS, GRPO, ROLLOUT, TRAIN):
        kernel(cell)
    assert float(kernel(OWN_GAME)) > 0.9  # the best arm; eight seeds: 0.963 to 0.969
