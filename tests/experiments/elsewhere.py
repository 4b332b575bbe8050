"""Train on games from Gymnasium, and compare with the optimum or with a published agent.

`uv run tests/experiments/elsewhere.py CartPole-v1` trains on one game with several seeds; without
a name, on all of them. `experiments.py elsewhere` keeps the results.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import autograd.numpy as anp
import gymnasium
import numpy as np
from gymnasium.vector import VectorWrapper

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cartpole import Rest

import microgrpo as m

# %% Environments


class MaskInObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """Make observations of the state and the mask of legal actions: [n, 1 + actions]."""

    def reset(self, **seed_and_options: Any) -> tuple[m.Array, dict[str, Any]]:
        """Start an episode for each seed."""
        states, info = self.env.reset(**seed_and_options)
        return np.column_stack([states, info["action_mask"]]), info

    def step(self, actions: m.Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action in each episode."""
        states, *rest, info = self.env.step(actions)
        return np.column_stack([states, info["action_mask"]]), *rest, info


@lru_cache  # environments are slow to make, and each reset starts them afresh
def environments(name: str, n: int) -> Any:
    """Return n environments in lockstep."""
    made: Any = gymnasium.make_vec(name, n, vectorization_mode="sync", wrappers=[Rest])
    return MaskInObservation(made) if name.startswith("Taxi") else made


# %% Policies


def softmax(logits: Any) -> Any:
    """Turn logits [..., actions] into probabilities."""
    p = anp.exp(logits)
    return p / anp.sum(p, axis=-1, keepdims=True)


def table_policy(θ: m.Params, state: m.Array) -> Any:
    """Look up the logits of each state: [n] -> [n, actions]."""
    return softmax(θ["table"][state])


def masked_table_policy(θ: m.Params, observation: m.Array) -> Any:
    """Look up the logits, with probability 0 for illegal actions: [n, 1 + actions] -> [n, actions].

    The first number of an observation is the state, the others are the mask.
    """
    state, mask = observation[:, 0], observation[:, 1:]
    return softmax(θ["table"][state] - 1e9 * (mask == 0))


def network_policy(θ: m.Params, observation: m.Array) -> Any:
    """Apply a network with one hidden layer: [n, numbers] -> [n, actions]."""
    return softmax(anp.tanh(observation @ θ["W1"] + θ["b1"]) @ θ["W2"])


def acrobot_policy(θ: m.Params, observation: m.Array) -> Any:
    """Apply the network to sines and cosines of two angles, and to both speeds, scaled down."""
    return network_policy(θ, observation / np.array([1, 1, 1, 1, 2, 4]))


def table_init(_: int, states: int, actions: int) -> m.Params:
    """Return a table that gives all actions the same probability."""
    return {"table": np.zeros((states, actions))}


def network_init(seed: int, inputs: int, actions: int, hidden: int = 32) -> m.Params:
    """Draw the parameters of a network that gives all actions nearly the same probability."""
    rng = np.random.default_rng(seed)
    return {
        "W1": rng.normal(size=(inputs, hidden)),
        "b1": np.zeros(hidden),
        "W2": rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, actions)),
    }


# %% Games


@dataclass(frozen=True)
class Game:
    """How to train on a game, and how often."""

    policy: Callable[[m.Params, m.Array], Any]
    init: Callable[[int], m.Params]  # seed -> parameters
    learning_rate: float
    G: int
    B: int
    M: int
    seeds: int = 3
    test_episodes: int = 1000


GAMES = {
    "Taxi-v4": Game(
        masked_table_policy,
        partial(table_init, states=500, actions=6),
        learning_rate=0.3,
        G=16,
        B=16,
        M=100,
    ),
    "FrozenLake-v1": Game(
        table_policy,
        partial(table_init, states=16, actions=4),
        learning_rate=0.05,
        G=64,
        B=4,
        M=150,
    ),
    "FrozenLake8x8-v1": Game(
        table_policy,
        partial(table_init, states=64, actions=4),
        learning_rate=0.03,
        G=64,
        B=4,
        M=200,
        seeds=5,
    ),
    "CartPole-v1": Game(
        network_policy,
        partial(network_init, inputs=4, actions=2),
        learning_rate=0.01,
        G=8,
        B=4,
        M=60,
    ),
    "Acrobot-v1": Game(
        acrobot_policy,
        partial(network_init, inputs=6, actions=3),
        learning_rate=0.01,
        G=16,
        B=2,
        M=150,
        test_episodes=200,
    ),
}

# The mean returns that CleanRL documents for its ppo.py, after 500,000 steps.
CLEANRL_PPO = {"CartPole-v1": 488.75, "Acrobot-v1": -82.48}


def optimum(name: str) -> float:
    """Return what the best play earns on average until the time limit, by dynamic programming."""
    game: Any = gymnasium.make(name)
    transitions = game.unwrapped.P  # [state][action]: list of (probability, next, reward, ended)
    value = np.zeros(len(transitions))  # with no time left
    for _ in range(game.spec.max_episode_steps):
        with_less_time = value
        value = np.zeros(len(transitions))
        for state, outcomes_by_action in transitions.items():
            value[state] = max(
                sum(p * (r + (not ended) * with_less_time[s]) for p, s, r, ended in outcomes)
                for outcomes in outcomes_by_action.values()
            )
    return float(game.unwrapped.initial_state_distrib @ value)


def compare_with(name: str) -> float:
    """Return the published mean return of a game, or else its optimum."""
    return CLEANRL_PPO[name] if name in CLEANRL_PPO else round(optimum(name), 4)


def mean_return(θ: m.Params, config: m.GRPOConfig, episodes: int) -> float:
    """Average the returns of episodes with seeds that training never draws."""
    n = config.G * config.B  # as many environments as in training, which have been made
    returns: list[float] = []
    for first in range(0, episodes, n):
        seeds = range(2**31 + first, 2**31 + min(first + n, episodes))
        returns += m.rollout(θ, config, seeds).rewards.tolist()
    return float(np.mean(returns))


def measure(name: str, seed: int) -> dict[str, float]:
    """Train with one seed; return the mean return before and after, and what training took."""
    game = GAMES[name]
    config = m.GRPOConfig(
        partial(environments, name),
        game.policy,
        G=game.G,
        B=game.B,
        M=game.M,
        μ=4,
        num_val=1,
        seed=seed,
    )
    θ_init = game.init(seed)
    optimizer = m.AdamWOptimizer(θ_init, game.learning_rate)
    steps = 0

    def count_steps(_i: int, _config: m.GRPOConfig, batch: m.Batch, *_: float) -> None:
        nonlocal steps
        steps += len(batch.actions)

    start = time.process_time()
    θ_star, _ = m.train_grpo(optimizer, config, report=count_steps)
    seconds = time.process_time() - start
    return {
        "untrained": round(mean_return(θ_init, config, game.test_episodes), 4),
        "trained": round(mean_return(θ_star, config, game.test_episodes), 4),
        "million steps": round(steps / 1e6, 3),
        "CPU seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or GAMES:
        for seed in range(GAMES[name].seeds):
            print(name, seed, measure(name, seed), flush=True)
