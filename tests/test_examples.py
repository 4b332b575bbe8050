"""Examples: run as a user runs them, some with less training; and what they need installed."""

import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import cartpole
import gymnasium
import numpy as np
import symmetric

import microgrpo as m

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "tests" / "examples"


def run_example(name: str, folder: Path, *arguments: str, old: str = "", new: str = "") -> str:
    """Run a copy of an example in an empty folder, with a change to it; return what it prints."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert source.count(old) == 1 or not old
    (folder / name).write_text(source.replace(old, new), encoding="utf-8")
    return subprocess.check_output(
        [sys.executable, name, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}", "PYTHONUTF8": "1"},
        encoding="utf-8",
    )


def test_variants_learn(tmp_path: Path) -> None:
    """Here in 10 batches: five seeds gave 0.214 to 0.267 for each of them."""
    output = run_example("variants.py", tmp_path, old="M=30", new="M=10")
    lines = re.findall(r"(.*?) +score (0\.\d{3})\n", output)
    scores = {name: float(score) for name, score in lines}
    assert len(scores) == 9
    assert 0.13 < scores.pop("untrained") < 0.17
    assert min(scores.values()) > 0.195


def test_the_symmetric_policy_learns_fast(tmp_path: Path) -> None:
    """Here in 60 batches: eight seeds gave 0.513 to 0.524."""
    old = "reference_policy=m.reference_battleship_policy,"
    output = run_example("symmetric.py", tmp_path, old=old, new=f"{old} M=60,")
    printed = re.findall(r"training: score (0\.\d{3}), \d\d\.\d shots per game\n", output)
    before, after = map(float, printed)
    assert 0.13 < before < 0.17
    assert after > 0.5


def test_the_symmetric_policy_turns_with_the_board() -> None:
    """Turning or mirroring a board turns or mirrors the answer, and so changes it."""
    rng = np.random.default_rng(1)
    θ = symmetric.symmetric_battleship_policy_init()
    θ = {name: value + rng.normal(size=value.shape).astype("f") for name, value in θ.items()}
    boards = rng.choice(np.array([0, 0, 0, 1, -1], np.float32), size=(20, 5, 5))
    answer = symmetric.symmetric_battleship_policy(θ, boards).reshape(boards.shape)
    assert answer.dtype == np.float32
    for turns in range(4):
        for flip in (1, -1):
            seen = np.rot90(boards, turns, axes=(1, 2))[:, :, ::flip]
            expected = np.rot90(answer, turns, axes=(1, 2))[:, :, ::flip]
            π = symmetric.symmetric_battleship_policy(θ, seen).reshape(seen.shape)
            np.testing.assert_allclose(π, expected, atol=1e-4)
            assert turns == 0 == flip - 1 or abs(answer - expected).max() > 0.1


def test_any_gymnasium_game(tmp_path: Path) -> None:
    """The pole stays upright for more than 400 of 500 steps."""
    output = run_example("cartpole.py", tmp_path)
    returns = re.findall(r"\nMean return of 100 episodes .* training: (\d+) of 500", output)
    before, after = map(float, returns)
    assert before < 100
    assert after > 400  # four seeds: 497 to 500


def test_resting_changes_no_trajectory() -> None:
    """Episodes are those of Gymnasium's own vector environments, even when used again."""
    θ = {"W1": np.random.default_rng(0).normal(size=(4, 32)), "W2": np.zeros((32, 2))}
    plain = partial(gymnasium.make_vec, "CartPole-v1", vectorization_mode="sync")
    configs = [m.GRPOConfig(games, cartpole.policy) for games in (cartpole.environment, plain)]
    for seeds in ([1, 2, 3, 3], [4, 2, 2, 5]):
        batch, expected = (m.rollout(θ, config, seeds) for config in configs)
        for column, expected_column in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(column, expected_column)


def test_a_first_reset_without_a_seed_starts_an_episode() -> None:
    """Once that has ended, only a reset with a seed starts another."""
    game = cartpole.Rest(gymnasium.make("CartPole-v1"))
    game.reset()
    while not (end := game.step(0))[2]:
        pass
    assert (game.reset()[0] == end[0]).all()
    assert (game.reset(seed=0)[0] != end[0]).any()


def test_only_numpy_and_autograd_are_needed() -> None:
    """So says the project, so says the file to those who run it alone, and so it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
    header = source.split("# ///")[1].replace("\n# ", "\n").removeprefix(" script")
    for key, value in tomllib.loads(header).items():
        assert project[key] == value
    needed = {requirement.split(">")[0] for requirement in project["dependencies"]}
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported - sys.stdlib_module_names == needed == {"autograd", "numpy"}
