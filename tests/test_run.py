"""Run: as a script, with few batches; imported; and cell by cell, as people do in Jupyter."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from inspect import getsource
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
import pytest
from nbclient import NotebookClient
from test_grpo import BATTLESHIP, literal_advantage
from test_train import Bandit, softmax

import microgrpo as m

SCRIPT = Path(m.__file__)
START, END = SCRIPT.read_text(encoding="utf-8").split("M: int = 1300")
NOTEBOOK = jupytext.reads(f"{START}M: int = 3{END}", fmt="py:percent")  # of `# %%` cells
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


def start(folder: Path, M: int) -> Any:
    """Start a copy of the script, alone in a folder, as if piped where emoji are unknown."""
    (folder / "microgrpo.py").write_text(f"{START}M: int = {M}{END}", encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "microgrpo.py"],
        cwd=folder,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def check_result(output: str, θ: m.Params) -> float:
    """Compare what is printed with games played again; return the score after training."""
    printed = re.findall(r"training: score (0\.\d{3}), (\d\d\.\d) shots", output)
    rows = re.findall(r"\n  (?:scores of a group|their advantages ) (.*)", output)
    for params, numbers in zip((m.neural_battleship_policy_init(), θ), printed, strict=True):
        games = m.rollout(params, BATTLESHIP, range(2**31, 2**31 + 2000))
        assert numbers == (f"{games.rewards.mean():.3f}", f"{len(games.actions) / 2000:.1f}")
        group = m.rollout(params, BATTLESHIP, [2**31] * 8).rewards
        scores, advantages = (np.array(rows.pop(0).split(), float) for _ in range(2))
        np.testing.assert_allclose(scores, group, atol=0.0051)
        by_hand = [literal_advantage(group, i, 8) for i in range(8)]
        np.testing.assert_allclose(advantages, by_hand, atol=0.0051)
    actions = games.actions[games.trajectory == 0]
    fleet = m.random_fleet(5, (2, 3, 4), 2**31).ravel()
    boards = np.array([list(row) for row in re.findall("^[🌊🚢💦💥]+$", output, re.MULTILINE)])
    shown = [*range(4, len(actions), 4), len(actions)]
    for board, shots in zip(boards.reshape(-1, 25), shown, strict=True):
        fired = np.isin(np.arange(25), actions[:shots])
        expected = np.where(fired, np.where(fleet, "💥", "💦"), np.where(fleet, "🚢", "🌊"))
        assert board.tolist() == expected.tolist()
    return float(games.rewards.mean())


def test_a_run_shows_and_saves_what_was_learned(tmp_path: Path) -> None:
    """Progress, scores and a game; learned from the default rate, B, μ ..., and the reference."""
    output, errors = start(tmp_path, M=22).communicate()
    assert not errors
    assert len(re.findall(r"^batch +\d+/22 ", output, re.MULTILINE)) == 20
    θ_star = dict(np.load(tmp_path / "battleship_policy.npz"))
    assert check_result(output, θ_star) > 0.28  # eight seeds: 0.316 to 0.340
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(), learning_rate=2e-2)
    m.train_grpo(optimizer, replace(BATTLESHIP, M=22), report=lambda *_: None)
    for name, value in optimizer.params.items():
        np.testing.assert_allclose(θ_star[name], value, atol=1e-5)
        assert θ_star[name].dtype == np.float32


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
def test_ctrl_c_ends_training_and_nothing_else(tmp_path: Path) -> None:
    """What was learned so far is scored, shown and saved. Progress comes through a pipe at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    process = start(tmp_path, M=400)
    assert "20/400" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert not errors
    assert "400/400" not in output
    assert process.returncode == 0
    θ = dict(np.load(tmp_path / "battleship_policy.npz"))
    assert check_result(output, θ) > 0.3  # eight seeds: 0.355 to 0.371


def test_a_folder_that_takes_no_file_costs_only_the_file(tmp_path: Path) -> None:
    """Score and game are shown first. A directory is in the way: root may write anywhere else."""
    (tmp_path / "battleship_policy.npz").mkdir()
    output, errors = start(tmp_path, M=1).communicate()
    assert "battleship_policy.npz" in errors
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init())
    check_result(output, m.train_grpo(optimizer, replace(BATTLESHIP, M=1))[0])


@pytest.mark.parametrize(("before", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_numpy_is_imported_with_one_thread(before: dict[str, str], threads: str) -> None:
    """By whoever imports the file too, unless they set another number before."""
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | before
    watch = "lambda _, args: args[0] == 'numpy' and print(os.environ.get('OMP_NUM_THREADS'))"
    code = f"import os, sys; sys.addaudithook({watch}); import microgrpo".encode()
    output = subprocess.check_output([sys.executable, "-"], cwd=SCRIPT.parent, env=env, input=code)
    assert output.decode().split() == [threads]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
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
    """The text has it too: jupytext hides what follows `# %%` in the cell's metadata."""
    titles = ["Environment", "Policy", "GRPO", "Rollout", "Train", "Run"]
    for cell, title in zip(NOTEBOOK.cells[1:], titles, strict=True):
        assert cell.metadata["title"] == title
        assert title.lower() in cell.source.partition("\n")[0].lower()


def test_all_cells_run_and_any_of_them_again(kernel: Any) -> None:
    """All but the last are silent. Objects made before a cell is run again still work."""
    *silent, run = map(kernel, CELLS)
    assert not any(silent)
    assert "3/3" in run
    assert "🚢" in run[:-30]
    assert "🚢" not in run[-30:]  # five rows of five, where the whole fleet is hit
    kernel(TRAIN_BRIEFLY)
    for cell in CELLS:
        kernel(cell)
        kernel("_ = train_grpo(optimizer, config)")
        kernel(TRAIN_BRIEFLY)
    # An edited objective takes effect once the Train cell, where it is a default, is run again.
    kernel(GRPO + "\ngrpo_objective = lambda θ, batch, config: 0 * anp.sum(θ['W1'])")
    kernel(TRAIN)
    assert float(kernel(TRAIN_BRIEFLY)) == 0  # the norm of the gradient


@pytest.mark.parametrize("first", ["", "from __future__ import annotations"])
def test_a_game_of_ones_own_needs_no_battleship(kernel: Any, first: str) -> None:
    """All cells but Environment, Policy and Run are enough, even if annotations are postponed."""
    for cell in ("%reset -f", first, IMPORTS, GRPO, ROLLOUT, TRAIN):
        kernel(cell)
    assert float(kernel(OWN_GAME)) > 0.9  # the best arm; eight seeds: 0.963 to 0.969
