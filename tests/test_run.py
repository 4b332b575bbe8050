"""The script: what someone sees who types the one command, shortened to a few mini-batches."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from microgrpo import neural_battleship_policy_init

SCRIPT = Path(__file__).parents[1] / "microgrpo.py"


def run(folder: Path, encoding: str) -> str:
    """Run a copy of the script, alone in a folder and with M = 20, as if piped."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count("M: int = 2000") == 1
    (folder / "microgrpo.py").write_text(
        source.replace("M: int = 2000", "M: int = 20"), encoding="utf-8"
    )
    output = subprocess.run(
        [sys.executable, "microgrpo.py"],
        cwd=folder,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert not output.stderr
    return output.stdout.decode(encoding)


def test_a_run_shows_what_came_of_it(tmp_path: Path) -> None:
    """A line on what happens, progress, scores, a game in emoji, and two files."""
    lines = run(tmp_path, "utf-8").splitlines()
    assert "20 mini-batches" in lines[0]
    assert [line.split()[1] for line in lines[1:3]] == ["1", "20"]
    words = lines[3].replace(",", "").split()
    trained, untrained = float(words[words.index("games:") + 1]), float(words[-1])
    assert untrained == pytest.approx(0.153, abs=0.01)
    assert trained > untrained + 0.05
    boards = [line.split("  ") for line in lines if "🌊" in line]
    assert [len(row) for row in boards] == [6] * 5
    assert not {"💦", "💥"} & set("".join(row[0] for row in boards))
    assert sum(row[-1].count("🚢") for row in boards) == 1  # the last shot hits it
    assert sum(row[-1].count("💥") for row in boards) == 8

    with np.load(tmp_path / "battleship_policy.npz") as saved:
        for name, value in neural_battleship_policy_init().items():
            assert saved[name].shape == value.shape
            assert saved[name].dtype == np.float32
            assert (saved[name] != value).all()
    header, *curve = (tmp_path / "battleship_rewards.csv").read_text().splitlines()
    assert header == "reward_val"
    assert len(curve) == 20
    assert f"held-out {float(curve[-1]):.3f}" in lines[2]


def test_a_run_survives_a_terminal_without_emoji(tmp_path: Path) -> None:
    """ASCII shows question marks for ships, but the run ends well."""
    assert run(tmp_path, "ascii").splitlines()[-1].startswith("Saved")
