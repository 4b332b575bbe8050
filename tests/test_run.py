"""Run: what someone sees who types the one command, here with few mini-batches, and who imports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "microgrpo.py"


def run(folder: Path, encoding: str, M: int) -> list[str]:
    """Run a copy of the script, alone in a folder and with few mini-batches, as if piped."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count("M: int = 2000") == 1
    shorter = source.replace("M: int = 2000", f"M: int = {M}")
    (folder / "microgrpo.py").write_text(shorter, encoding="utf-8")
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    output = subprocess.run(
        [sys.executable, "microgrpo.py"], cwd=folder, env=env, capture_output=True, check=True
    )
    assert not output.stderr
    return output.stdout.decode(encoding).splitlines()


def test_a_run_shows_what_was_learned(tmp_path: Path) -> None:
    """Calm progress, the score, a game in emoji until the last ship is hit, and the parameters."""
    lines = run(tmp_path, "utf-8", M=22)
    assert [int(re.findall(r"\d+", line)[0]) for line in lines[:12]] == [1, *range(2, 23, 2)]
    assert 0.2 < float(re.findall(r"0\.\d+", lines[12])[0]) < 0.5  # five seeds: 0.276 to 0.287
    boards = np.array([list(line) for line in lines if line[0] in "🌊🚢💦💥"]).reshape(-1, 25)
    shots = [int(np.isin(board, ["💦", "💥"]).sum()) for board in boards]
    assert shots == [*range(4, shots[-1], 4), shots[-1]]
    assert [("🚢" in board) for board in boards] == [True] * (len(boards) - 1) + [False]
    with np.load(tmp_path / "battleship_policy.npz") as θ_star:
        assert {value.dtype for value in θ_star.values()} == {np.dtype(np.float32)}


def test_a_run_survives_a_terminal_without_emoji(tmp_path: Path) -> None:
    """ASCII shows question marks for the tiles of the last board."""
    assert run(tmp_path, "ascii", M=1)[-5:] == ["?" * 5] * 5


@pytest.mark.parametrize(("before", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_numpy_is_imported_with_one_thread(before: dict[str, str], threads: str) -> None:
    """By whoever imports the file too, unless they said otherwise before."""
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | before
    watch = "lambda _, args: args[0] == 'numpy' and print(os.environ.get('OMP_NUM_THREADS'))"
    code = f"import os, sys; sys.addaudithook({watch}); import microgrpo".encode()
    output = subprocess.check_output([sys.executable, "-"], cwd=SCRIPT.parent, env=env, input=code)
    assert output.decode().split() == [threads]
