"""Measure what the results page quotes, and keep it in `results.json` beside this file.

`uv run tests/experiments/experiments.py` takes about 45 minutes on two cores. To measure a part,
name it: seeds, games, symmetric, learning_rates, ablations, boards, elsewhere or questions.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each process

import autograd.numpy as anp
import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "examples"))

import elsewhere
from players import all_placements, beside_a_hit
from questions import QUESTIONS, read_questions, run_snippet
from results import read_results, write_section
from symmetric import symmetric_battleship_policy, symmetric_battleship_policy_init
from variants import (
    cispo_objective,
    dapo_objective,
    dr_grpo_objective,
    gspo_objective,
    k2_objective,
    rloo_objective,
)

import microgrpo as m

np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py's own run

DEFAULT = m.GRPOConfig(
    environment=m.BattleshipEnv,
    policy=m.neural_battleship_policy,
    reference_policy=m.reference_battleship_policy,
)
DEFAULT_LEARNING_RATE = 2e-2
SYMMETRIC = {
    "policy": symmetric_battleship_policy,
    "init": symmetric_battleship_policy_init,
}


def run_all(pool: ProcessPoolExecutor, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train once for each job, which holds the arguments of `train`."""
    futures = [pool.submit(train, **job) for job in jobs]
    return [future.result() for future in futures]


# %% One run on the default board


class EveryFleet(m.BattleshipEnv):
    """Battleship in which the seed is the number of one of the 9,024 legal placements."""

    def reset(self, *, seed: Iterable[int]) -> tuple[m.Array, dict[str, Any]]:
        """Hide the placements with these numbers."""
        self.fleets = all_placements()[list(seed)]
        self.shots = np.zeros_like(self.fleets)
        return self.observations(), {}


def train(
    learning_rate: float = DEFAULT_LEARNING_RATE,
    objective: Callable[..., Any] = m.grpo_objective,
    init: Callable[..., m.Params] = m.neural_battleship_policy_init,
    **changes: Any,
) -> dict[str, Any]:
    """Train with changes to the default configuration; return what came of it."""
    config = replace(DEFAULT, **changes)
    optimizer = m.AdamWOptimizer(init(seed=config.seed), learning_rate)
    seconds = []
    start = time.process_time()

    def note_the_time(*_: Any) -> None:
        seconds.append(time.process_time() - start)

    θ_star, rewards_val = m.train_grpo(optimizer, config, objective, report=note_the_time)

    every_placement = range(len(all_placements()))
    games = m.rollout(θ_star, replace(config, environment=EveryFleet), every_placement)
    reached = first_batch_at(0.48, rewards_val)
    return {
        "score": round(float(games.rewards.mean()), 4),
        "shots": round(len(games.actions) / len(games.rewards), 2),
        "CPU seconds": round(seconds[-1], 1),
        "batches to 0.48": reached,
        "CPU seconds to 0.48": reached and round(seconds[reached - 1], 1),
        "curve": [round(float(part.mean()), 4) for part in np.array_split(rewards_val, 100)],
        "game": play_likeliest_shots(config.policy, θ_star),
    }


def first_batch_at(score: float, rewards_val: m.Array) -> int | None:
    """Return the number of the batch after which the smoothed validation score gets there."""
    smoothed = 0.0
    for batch, reward_val in enumerate(rewards_val, start=1):
        smoothed = 0.8 * smoothed + 0.2 * reward_val
        if smoothed >= score:
            return batch
    return None


def play_likeliest_shots(policy: Callable[..., Any], θ: m.Params) -> list[dict[str, Any]]:
    """Play one game; return the board, the policy's probabilities and the shot of each turn."""
    environment = m.BattleshipEnv(num_envs=1)
    board, _ = environment.reset(seed=[2**31 + 3])
    turns = []
    finished = np.array([False])
    while not finished[0]:
        π = policy(θ, board).ravel()
        shot = int(π.argmax())
        turns.append(
            {
                "board": board.astype(int).ravel().tolist(),
                "policy": [round(float(p), 4) for p in π],
                "shot": shot,
            }
        )
        board, _, finished, _, _ = environment.step(np.array([shot]))
    return turns


# %% Ten seeds of the default run, and of the symmetric network


def ten_seeds(pool: ProcessPoolExecutor, **job: Any) -> list[dict[str, Any]]:
    """Train with seeds 0 to 9; keep only the game of the first, which a picture shows."""
    runs = run_all(pool, [{"seed": seed, **job} for seed in range(10)])
    for run in runs[1:]:
        del run["game"]
    for seed, run in enumerate(runs):
        print(seed, {name: value for name, value in run.items() if name not in ("curve", "game")})
    return runs


def measure_seeds(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Train the default run ten times."""
    return ten_seeds(pool)


def measure_symmetric(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Train the symmetric network ten times."""
    return ten_seeds(pool, **SYMMETRIC)


# %% Two games against the same fleet, before and after training, for a picture


def measure_games(_: ProcessPoolExecutor) -> dict[str, Any]:
    """Train the default run; return two typical games, and the means that they are typical of."""
    θ_init = m.neural_battleship_policy_init()
    optimizer = m.AdamWOptimizer(θ_init)
    m.train_grpo(optimizer, DEFAULT, report=lambda *_: None)

    test_seeds = range(2**31, 2**31 + 2000)  # as at the end of microgrpo.py
    players = {
        "before training": m.rollout(θ_init, DEFAULT, test_seeds),
        "after training": m.rollout(optimizer.params, DEFAULT, test_seeds),
    }
    lengths = np.array([np.bincount(games.trajectory) for games in players.values()])  # [2, 2000]
    means = lengths.mean(axis=1)
    # Not a lucky pair: the first seed with which both players need as many shots as on average.
    typical = (abs(lengths - means[:, None]) <= 0.5).all(axis=0)
    first = int(typical.argmax())
    fleet = m.random_fleet(5, (2, 3, 4), test_seeds[first])
    print(f"seed 2**31 + {first}: {lengths[:, first]} shots; {means} on average")
    return {
        "seed": test_seeds[first],
        "fleet": np.flatnonzero(fleet).tolist(),
        "shots": {
            name: games.actions[games.trajectory == first].tolist()
            for name, games in players.items()
        },
        "mean shots": dict(zip(players, means.round(2).tolist(), strict=True)),
    }


# %% Ablations: every row is trained on 76,800 games, 150 batches of 512


def undivided_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """Return J without the KL divergence and without dividing by the standard deviation."""
    π = config.policy(θ, batch.observations)[np.arange(len(batch.actions)), batch.actions]
    ρ = π / batch.π_old
    groups = batch.rewards.reshape(-1, config.G)
    A = (groups - groups.mean(axis=1, keepdims=True)).reshape(-1)[batch.trajectory]
    per_step = anp.minimum(ρ * A, anp.clip(ρ, 1 - config.ε, 1 + config.ε) * A)
    length = np.bincount(batch.trajectory)
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


ROWS: dict[str, dict[str, Any]] = {
    "GRPO": {},
    "Dr. GRPO": {"objective": dr_grpo_objective, "max_steps": 25},
    "DAPO": {"objective": dapo_objective},
    "GSPO": {"objective": gspo_objective},
    "CISPO": {"objective": cispo_objective},
    "RLOO, μ=1": {"objective": rloo_objective, "μ": 1},
    "k2 for k3": {"objective": k2_objective},
    "no KL": {"β": 0},
    "no KL, A not divided": {"objective": undivided_objective, "β": 0},
    "β=0.01": {"β": 0.01},
    "no clip": {"ε": 1e9},
    "μ=1": {"μ": 1},
    "μ=4": {"μ": 4},
    "μ=8": {"μ": 8},
    "μ=8, no clip": {"μ": 8, "ε": 1e9},
    "G=4, B=128": {"G": 4, "B": 128},
    "G=16, B=32": {"G": 16, "B": 32},
    "G=64, B=8": {"G": 64, "B": 8},
    "symmetric network": SYMMETRIC,
}
TUNED = [name for name, row in ROWS.items() if "objective" in row or "init" in row]
TUNED += ["GRPO", "μ=1"]  # objective, network and μ affect the best learning rate most
LEARNING_RATES = (1e-2, 2e-2, 4e-2)


def measure_learning_rates(pool: ProcessPoolExecutor) -> dict[str, dict[str, float]]:
    """Try three learning rates for each variant, on two seeds that the ablations do not use."""
    table: dict[str, dict[str, float]] = {}
    for name in TUNED:
        table[name] = {}
        for rate in LEARNING_RATES:
            job = {**ROWS[name], "M": 150, "learning_rate": rate}
            runs = run_all(pool, [{**job, "seed": 200}, {**job, "seed": 201}])
            table[name][str(rate)] = round(float(np.mean([run["score"] for run in runs])), 4)
        print(f"{name:24}{table[name]}", flush=True)
    return table


def measure_ablations(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train each row with three seeds, the variants at the best of the learning rates tried."""
    tried = read_results()["learning_rates"]
    table = {}
    for name, row in ROWS.items():
        rate = DEFAULT_LEARNING_RATE
        if name in TUNED:
            rate = float(max(tried[name], key=tried[name].get))
        job = {**row, "M": 150, "learning_rate": rate}
        runs = run_all(pool, [{**job, "seed": seed} for seed in (100, 101, 102)])
        table[name] = {"learning rate": rate, "score": [run["score"] for run in runs]}
        print(f"{name:24}{table[name]}", flush=True)
    return table


# %% Larger boards

BOARDS = {
    "10 x 10, ships of 5, 4, 3, 3, 2": (10, (5, 4, 3, 3, 2), 900),
    "8 x 8, ships of 2, 3, 3, 4": (8, (2, 3, 3, 4), 1400),
    "6 x 6, ships of 2, 3, 3": (6, (2, 3, 3), 1800),
}  # board size, ships, and the number of batches


def random_shots_score(board_size: int, ships: tuple[int, ...]) -> float:
    """Return the exact mean score of random shots, which does not depend on where ships lie."""
    ship_tiles = sum(ships)
    water_tiles = board_size**2 - ship_tiles
    # A tile of water is shot before the last of S ship tiles with probability S / (S + 1).
    misses = water_tiles * ship_tiles / (ship_tiles + 1)
    return 1 - misses / (water_tiles + 1)


def hunt_and_target(_: m.Params, observation: m.Array) -> m.Array:
    """Fire beside a hit where possible, else anywhere: the usual strategy, as a policy."""
    unknown = observation == 0
    beside = unknown & beside_a_hit(observation)
    choice = np.where(beside.any(axis=(-2, -1), keepdims=True), beside, unknown)
    choice = choice.reshape(*observation.shape[:-2], -1)
    return np.asarray(choice / choice.sum(axis=-1, keepdims=True))


def train_on_board(board_size: int, ships: tuple[int, ...], batches: int) -> dict[str, Any]:
    """Train the symmetric network; compare it with random shots and hunt & target."""
    config = replace(
        DEFAULT,
        environment=partial(m.BattleshipEnv, board_size=board_size, ships=ships),
        policy=symmetric_battleship_policy,
        M=batches,
    )
    θ_init = symmetric_battleship_policy_init(board_size)
    optimizer = m.AdamWOptimizer(θ_init, DEFAULT_LEARNING_RATE)
    start = time.process_time()
    θ_star, _ = m.train_grpo(optimizer, config, report=lambda *_: None)
    minutes = (time.process_time() - start) / 60

    test_seeds = range(2**31, 2**31 + 10_000)
    by_hand = m.rollout({}, replace(config, policy=hunt_and_target), test_seeds)
    trained = m.rollout(θ_star, config, test_seeds)
    return {
        "random": round(random_shots_score(board_size, ships), 4),
        "hunt & target": round(float(by_hand.rewards.mean()), 4),
        "trained": round(float(trained.rewards.mean()), 4),
        "batches": batches,
        "CPU minutes": round(minutes, 1),
    }


def measure_boards(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train once on each of three larger boards."""
    futures = {name: pool.submit(train_on_board, *board) for name, board in BOARDS.items()}
    boards = {name: future.result() for name, future in futures.items()}
    for name, row in boards.items():
        print(name, row)
    return boards


# %% Gymnasium


def measure_elsewhere(pool: ProcessPoolExecutor) -> dict[str, dict[str, Any]]:
    """Train on each of Gymnasium's games with a few seeds."""
    futures = {
        name: [pool.submit(elsewhere.measure, name, seed) for seed in range(game.seeds)]
        for name, game in elsewhere.GAMES.items()
    }
    table = {}
    for name, of_this_game in futures.items():
        runs = [future.result() for future in of_this_game]
        table[name] = {"runs": runs, "compare with": elsewhere.compare_with(name)}
        print(name, table[name], flush=True)
    return table


# %% The ten questions


def measure_questions(pool: ProcessPoolExecutor) -> dict[str, dict[str, list[list[float]]]]:
    """Run each Python snippet with three seeds; return what it prints, by opening and snippet."""
    opening, answers = read_questions(QUESTIONS.read_text(encoding="utf-8"))
    futures = {
        snippet: [pool.submit(run_snippet, opening + snippet, seed) for seed in range(3)]
        for snippet in answers
        if not snippet.startswith("uv run")  # language_models.py measures this one
    }
    return {opening: {code: [run.result() for run in runs] for code, runs in futures.items()}}


if __name__ == "__main__":
    measures = {
        "seeds": measure_seeds,
        "games": measure_games,
        "symmetric": measure_symmetric,
        "learning_rates": measure_learning_rates,
        "ablations": measure_ablations,
        "boards": measure_boards,
        "elsewhere": measure_elsewhere,
        "questions": measure_questions,
    }
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as workers:
        for section in sys.argv[1:] or measures:
            write_section(section, measures[section](workers))
