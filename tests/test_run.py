"""Run: what the one command prints and saves, here with few batches, and what importing does."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_grpo import BATTLESHIP, literal_advantage

import microgrpo as m

SCRIPT = Path(__file__).parents[1] / "microgrpo.py"


def start(folder: Path, M: int) -> "subprocess.Popen[str]":
    """Start a copy of the script, alone in a folder, as if piped where emoji are unknown."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count("M: int = 1300") == 1
    shorter = source.replace("M: int = 1300", f"M: int = {M}")
    (folder / "microgrpo.py").write_text(shorter, encoding="utf-8")
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
    results = output[output.index("Before training") :]
    printed = re.findall(r"score (0\.\d{3}), (\d\d\.\d) shots", results)
    rows = re.findall(r"  (?:scores of a group|their advantages ) (.*)", results)
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
    assert process.stdout
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
