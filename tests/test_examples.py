"""Examples, run as a user runs them, some with less training; and games of Gymnasium."""

import re
import sys
import tomllib
from dataclasses import replace
from functools import partial
from math import log, prod
from typing import Any

import numpy as np
import pytest
import symmetric
import variants
from cartpole import Rest
from gymnasium import make
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation
from questions import ROOT, run_code
from test_grpo import LINEAR, any_batch, check_formula, linear_policy, literal_advantage

import microgrpo as m

EXAMPLES = ROOT / "tests" / "examples"


def run_example(name: str, *arguments: str, old: str = "", new: str = "") -> str:
    """Run an example, with a change if one is given; return what it prints."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert source.count(old) == 1 or not old
    return run_code(source.replace(old, new), *arguments)


def test_variants_learn() -> None:
    """Here in 10 batches: five seeds gave 0.214 to 0.267 for each of them."""
    output = run_example("variants.py", old="M=30", new="M=10")
    untrained, *scores = map(float, re.findall(r".* score (0\.\d{3})\n", output))
    assert len(scores) == 8
    assert 0.13 < untrained < 0.17
    assert min(scores) > 0.195


def test_the_symmetric_policy_learns_fast() -> None:
    """Here in 60 batches: eight seeds gave 0.513 to 0.524."""
    output = run_example("symmetric.py", old="GRPOConfig(", new="GRPOConfig(M=60, ")
    before, after = map(float, re.findall(r": score (0\.\d{3}), \d\d\.\d shots per", output))
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


def test_any_gymnasium_game() -> None:
    """The pole stays upright for more than 400 of 500 steps."""
    output = run_example("cartpole.py")
    before, after = map(float, re.findall(r"\nMean return .* training: (\d+) of 500", output))
    assert before < 100
    assert after > 400  # four seeds: 497 to 500


def test_only_numpy_and_autograd_are_needed() -> None:
    """So says the project, so says the file to those who run it alone, and so it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (ROOT / "microgrpo.py").read_text(encoding="utf-8")
    header = source.split("# ///")[1].replace("\n# ", "\n").removeprefix(" script")
    assert project == project | tomllib.loads(header)
    needed = {requirement.split(">")[0] for requirement in project["dependencies"]}
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported - sys.stdlib_module_names == needed == {"autograd", "numpy"}


# How to make a single plain environment, which never resets by itself; how its episodes end.
GAMES: dict[str, tuple[Any, set[str]]] = {
    "vectors": (partial(make, "CartPole-v1"), {"terminated", "not"}),
    "time limit": (partial(make, "CartPole-v1", max_episode_steps=19), {"terminated", "truncated"}),
    "only a time limit": (partial(make, "Acrobot-v1", max_episode_steps=9), {"truncated"}),
    "matrices": (lambda: FrameStackObservation(make("CartPole-v1"), 3), {"terminated", "not"}),
    "integers, and luck": (partial(make, "FrozenLake-v1"), {"terminated"}),
    "tuples": (lambda: FlattenObservation(make("Blackjack-v1")), {"terminated"}),
}
MODES: dict[str, Any] = {
    "reset next": partial(SyncVectorEnv, autoreset_mode=AutoresetMode.NEXT_STEP, copy=False),
    "reset at once": partial(SyncVectorEnv, autoreset_mode=AutoresetMode.SAME_STEP, copy=False),
    "rest": lambda makers: SyncVectorEnv([lambda: Rest(makers[0]())] * len(makers)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GAMES)
def test_a_trajectory_is_one_episode_of_a_single_environment(name: str, mode: str) -> None:
    """Seeds and actions are equal, and most games are reset while others still run."""
    maker, ends = GAMES[name]
    games = MODES[mode]([maker] * 24)
    actions = maker().action_space.n
    probabilities = np.full((24, actions), 1 / actions)
    config = m.GRPOConfig(lambda _: games, lambda _, seen: probabilities[: len(seen)], max_steps=20)
    seeds = np.repeat([3, 1, 4, 1000], 6)
    m.rollout({}, config, seeds[::-1])  # the next one uses the same environments again
    batch = m.rollout({}, config, seeds)
    seen_ends = set()
    for i, seed in enumerate(seeds.tolist()):
        plain, end = maker(), "not"
        seen, _ = plain.reset(seed=seed)
        own = np.flatnonzero(batch.trajectory == i)
        for step in own:
            assert end == "not"
            np.testing.assert_array_equal(batch.observations[step], seen, strict=True)
            seen, reward, terminated, truncated, _ = plain.step(batch.actions[step])
            assert batch.step_rewards[step] == reward
            end = "terminated" if terminated else "truncated" if truncated else "not"
        assert end != "not" or len(own) == 20
        seen_ends.add(end)
    assert seen_ends == ends


def test_a_first_reset_without_a_seed_starts_an_episode() -> None:
    """Once it has ended, only a reset with a seed starts another."""
    game = Rest(make("CartPole-v1"))
    game.reset()
    while not (end := game.step(0))[2]:
        pass
    assert (game.reset()[0] == end[0]).all()
    assert (game.reset(seed=0)[0] != end[0]).any()


# Three groups of four. The rewards of the last are equal, but were added up in other orders.
REWARDS = np.array([0.4, -1.1, 0.9, 2.0, 0.0, 1.0, 1.0, -0.5, 0.6, 0.6, 0.6, 0.6])
REWARDS[8:10] = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
CONFIG = replace(LINEAR, max_steps=7)


def literal_variant(name: str, θ: m.Params, batch: m.Batch, config: Any, now: m.Params) -> float:
    """Add up the terms of a paper's formula. Weights that are held constant are taken at `now`."""
    ε, G, n, S = config.ε, config.G, len(batch.rewards), len(batch.actions)
    β = config.β if config.reference_policy else 0

    def π(θ: m.Params, step: int) -> float:
        return float(linear_policy(θ, batch.observations[step])[batch.actions[step]])

    def surrogate(ρ: float, A: float, low: float = 1 - ε, high: float = 1 + ε) -> float:
        return min(ρ * A, min(max(ρ, low), high) * A)

    total = 0.0
    for i in range(n):
        group = [j for j in range(n) if j // G == i // G]
        own = [step for step in range(S) if batch.trajectory[step] == i]
        of_group = [step for step in range(S) if batch.trajectory[step] in group]
        centered = float(batch.rewards[i]) - sum(float(batch.rewards[j]) for j in group) / G
        others = [float(batch.rewards[j]) for j in group if j != i]
        A = literal_advantage(batch.rewards, i, G)
        s = prod(π(θ, step) / float(batch.π_old[step]) for step in own) ** (1 / len(own))
        of_steps = batch.step_rewards[of_group]
        normalised = [literal_advantage(of_steps, k, len(of_steps)) for k in range(len(of_steps))]
        for t, step in enumerate(own):
            ρ = π(θ, step) / float(batch.π_old[step])
            constant = min(π(now, step) / float(batch.π_old[step]), 1 + ε)
            to_ref = float(batch.π_ref[step]) / π(θ, step) or 1.0
            to_come = sum(normalised[of_group.index(k)] for k in own[t:])
            k3 = to_ref - log(to_ref) - 1
            total += {
                "dr_grpo": surrogate(ρ, centered) / n / config.max_steps,
                "dapo": surrogate(ρ, A, 0.8, 1.28) / len(of_group) / 2,  # two groups count
                "gspo": surrogate(s, A) / n / len(own),
                "cispo": constant * A * log(π(θ, step)) / len(of_group) / (n / G),
                "rloo": (batch.rewards[i] - sum(others) / (G - 1)) * log(π(θ, step)) / n,
                "k2": (surrogate(ρ, A) - β * log(to_ref) ** 2 / 2) / n / len(own),
                "process_supervision": (surrogate(ρ, to_come) - β * k3) / n / len(own),
            }[name]
    return total


NAMES = ["dr_grpo", "dapo", "gspo", "cispo", "rloo", "k2", "process_supervision"]
CASES: list[Any] = [(name, REWARDS, {}) for name in NAMES]
CASES += [("dapo", np.full(12, 0.5), {})]  # no group counts, and nothing is divided by 0
CASES += [(NAMES[-1], REWARDS, {"β": 0}), (NAMES[-1], REWARDS, {"reference_policy": None})]


@pytest.mark.parametrize(("name", "rewards", "off"), CASES)
def test_a_variant_is_its_papers_formula(name: str, rewards: Any, off: dict[str, Any]) -> None:
    """Value and gradient agree, in any order of steps. Without a divergence, π_ref may be 0."""
    θ, batch = any_batch(rewards)
    rng = np.random.default_rng(2)
    batch = batch._replace(step_rewards=rng.normal(size=len(batch.actions)))
    batch.π_ref[::2] *= not off
    objective = getattr(variants, f"{name}_objective")
    literal = partial(literal_variant, name, now=θ)
    check_formula(objective, literal, θ, batch, replace(CONFIG, **off))
