"""The notebook: the file's `# %%` cells, as people run, run again and edit them in Jupyter."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

Kernel = Callable[[str], str]

SOURCE = (Path(__file__).parents[1] / "microgrpo.py").read_text(encoding="utf-8")
NOTEBOOK = jupytext.reads(SOURCE.replace("M: int = 2000", "M: int = 21"), fmt="py:percent")
CELLS = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"]
IMPORTS, GAME, ENVIRONMENT, POLICY, GRPO, TRAIN, RUN = CELLS

TRAIN_BRIEFLY = """
config = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy, M=1)
optimizer = AdamWOptimizer(neural_battleship_policy_init())
_ = train_grpo(optimizer, config, report=lambda i, metrics: print(*metrics["objective"]))
"""

GO_ON = """
_ = train_grpo(optimizer, config)
"""

EDITED_OBJECTIVE = """
def grpo_objective(θ, batch, config):
    return 7 + 0 * anp.sum(θ["W1"])
"""

OWN_GAME = """
class Bandit:
    def __init__(self, n):
        self.n = n

    def reset(self, *, seed):
        return np.zeros((self.n, 1)), {}

    def step(self, actions):
        over = np.ones(self.n, bool)
        return np.zeros((self.n, 1)), actions.astype(float), over, over, {}


def policy(θ, observation):
    weights = anp.exp(observation + θ["logits"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


optimizer = AdamWOptimizer({"logits": np.zeros(3)}, learning_rate=0.1)
θ_star, _ = train_grpo(optimizer, GRPOConfig(Bandit, policy, M=60), report=lambda *_: None)
print(policy(θ_star, np.zeros(1))[2])
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
        assert {output.get("name") for output in outputs} <= {"stdout"}  # nor "stderr" be written
        return "".join(output.text for output in outputs)

    with client.setup_kernel():
        yield execute


def test_all_cells_run_and_any_of_them_again(kernel: Kernel) -> None:
    """Progress is a few calm lines, and what is older than a cell's last run goes on working."""
    *silent, run = [kernel(cell) for cell in CELLS]
    assert not any(silent)
    assert "\r" not in run
    assert run.count("mini-batch") == 12  # of 21
    assert "🚢" in run
    assert "🚢" not in "".join(run.split()[-5:])  # the whole fleet is hit
    kernel(TRAIN_BRIEFLY)
    for cell in CELLS:
        kernel(cell)
        kernel(GO_ON)
        kernel(TRAIN_BRIEFLY)


def test_an_edited_objective_takes_effect(kernel: Kernel) -> None:
    """Its cell is run again, and no other."""
    for cell in ("%reset -f", *CELLS[:-1], GRPO + EDITED_OBJECTIVE):
        kernel(cell)
    assert set(kernel(TRAIN_BRIEFLY).split()) == {"7.0"}


def test_a_game_of_ones_own_needs_no_battleship(kernel: Kernel) -> None:
    """The imports, GRPO and Train will do, and of the Environment no more than the Protocol."""
    protocol = "class Environment" + ENVIRONMENT.split("class Environment")[1].split("\n\n\n")[0]
    for cell in ("%reset -f", IMPORTS, protocol, GRPO, TRAIN):
        kernel(cell)
    assert float(kernel(OWN_GAME)) > 0.8  # the arm that pays most


def test_annotations_may_be_postponed(kernel: Kernel) -> None:
    """Some notebooks begin so; it comes last here, as a kernel then does it in all cells."""
    first = IMPORTS.replace("\nimport os\n", "\nfrom __future__ import annotations\n\nimport os\n")
    for cell in ("%reset -f", first, *CELLS[1:]):
        kernel(cell)
    assert kernel("print(GRPOConfig.__annotations__['M'])") == "int\n"  # and not <class 'int'>
