# /// script
# requires-python = ">=3.11"
# dependencies = ["autograd>=1.7", "gymnasium>=1.2", "numpy>=2"]
# ///
"""The same trainer on games that no one here wrote, from Gymnasium.

`uv run .github/elsewhere.py` trains three seeds of each, and prints their scores beside the optimum
or a published agent; name one or more games to train only these. Settings were chosen on seeds from
100 up, and not on 0, 1 and 2, which are reported.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import autograd.numpy as anp
import gymnasium
import numpy as np
from gymnasium.vector import VectorWrapper

sys.path.append(str(Path(__file__).parents[1]))

import microgrpo as m

SEEDS = (0, 1, 2)

# %% Environments: what the trainer is given


class Rest(gymnasium.Wrapper[Any, Any, Any, Any]):
    """After its end an episode rests, at no cost, until the next reset with a seed.

    Automatic resets come without a seed, and would start an episode that nobody learns from.
    """

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, if there is a seed."""
        if seed is None:
            return self.end[0], {}
        self.end: Any = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Take an action, if the episode is not over."""
        if self.end is not None:
            return self.end
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.end = observation, 0.0, terminated, truncated, {}
        return observation, reward, terminated, truncated, info


class MaskInObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """Put the mask of possible actions beside the state: [n, 1 + actions]."""

    def reset(self, **seed_and_options: Any) -> tuple[m.Array, dict[str, Any]]:
        """Start episodes."""
        states, info = self.env.reset(**seed_and_options)
        return np.column_stack([states, info["action_mask"]]), info

    def step(self, actions: m.Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action in each episode."""
        states, *rest, info = self.env.step(actions)
        return np.column_stack([states, info["action_mask"]]), *rest, info


class Count(VectorWrapper[Any, Any, Any, Any, Any]):
    """Count steps: one of n episodes in lockstep counts n, those that have ended included."""

    steps = 0  # of all environments together

    def step(self, actions: m.Array) -> Any:
        """Take an action in each episode."""
        Count.steps += self.num_envs
        return self.env.step(actions)


@lru_cache  # they are made once, and then reset
def environments(name: str, n: int) -> Any:
    """Make n environments in lockstep."""
    made: Any = gymnasium.make_vec(name, n, vectorization_mode="sync", wrappers=[Rest])
    if name.startswith("Taxi"):
        made = MaskInObservation(made)
    return Count(made)


# %% Policies: a table for states that are numbers, a network for vectors


def softmax(logits: Any) -> Any:
    """Turn numbers [..., actions] into probabilities."""
    p = anp.exp(logits)
    return p / anp.sum(p, axis=-1, keepdims=True)


def table(θ: m.Params, state: m.Array) -> Any:
    """Look up the state, [n] -> [n, actions]."""
    return softmax(θ["table"][state])


def masked_table(θ: m.Params, observation: m.Array) -> Any:
    """Look up the state, and leave out what its mask does: [n, 1 + actions] -> [n, actions]."""
    state, mask = observation[:, 0], observation[:, 1:]
    return softmax(θ["table"][state] - 1e9 * (mask == 0))


def network(θ: m.Params, observation: m.Array, scale: Any = 1.0) -> Any:
    """Think for one layer, [n, numbers] -> [n, actions]."""
    return softmax(anp.tanh(observation / scale @ θ["W1"] + θ["b1"]) @ θ["W2"])


def table_init(states: int, actions: int) -> Callable[[int], m.Params]:
    """Tell how to start: with equal probabilities."""
    return lambda _: {"table": np.zeros((states, actions))}


def network_init(inputs: int, hidden: int, actions: int) -> Callable[[int], m.Params]:
    """Tell how to start: with nearly equal probabilities."""

    def init(seed: int) -> m.Params:
        rng = np.random.default_rng(seed)
        return {
            "W1": rng.normal(size=(inputs, hidden)),
            "b1": np.zeros(hidden),
            "W2": rng.normal(scale=0.1 * hidden**-0.5, size=(hidden, actions)),
        }

    return init


# %% Yardsticks


def optimum(name: str) -> float:
    """Return what the best play earns on average until the time limit, by dynamic programming."""
    game: Any = gymnasium.make(name)
    transitions = game.unwrapped.P  # [state][action]: list of (probability, next, reward, ended)
    value = np.zeros(len(transitions))  # of a state with no time left
    for _ in range(game.spec.max_episode_steps):
        value = np.array(
            [
                max(
                    sum(p * (r + (not ended) * value[s]) for p, s, r, ended in outcomes)
                    for outcomes in transitions[state].values()
                )
                for state in range(len(transitions))
            ]
        )
    return float(game.unwrapped.initial_state_distrib @ value)


# %% Games


@dataclass(frozen=True)
class Game:
    """What to train, from where and how fast, and what to compare with."""

    config: m.GRPOConfig
    init: Callable[[int], m.Params]  # seed -> parameters
    learning_rate: float
    yardstick: Callable[[], float]
    yardstick_text: str
    test: int = 1000  # episodes


def game(name: str, policy: Any, settings: dict[str, Any], *arguments: Any, **more: Any) -> Game:
    """Describe one of Gymnasium's games, with environments that are kept between rollouts."""
    config = m.GRPOConfig(partial(environments, name), policy, num_val=1, **settings)
    return Game(config, *arguments, **more)


BEST = "optimum, by dynamic programming"
ACROBOT_SCALE = np.array([1, 1, 1, 1, 4, 9.0])
GAMES = {
    "Taxi-v4": game(
        "Taxi-v4",
        masked_table,
        dict(G=16, B=16, M=100, μ=4),
        table_init(500, 6),
        0.3,
        partial(optimum, "Taxi-v4"),
        BEST,
    ),
    "FrozenLake-v1": game(
        "FrozenLake-v1",
        table,
        dict(G=64, B=4, M=150, μ=4),
        table_init(16, 4),
        0.05,
        partial(optimum, "FrozenLake-v1"),
        BEST,
    ),
    "FrozenLake8x8-v1": game(
        "FrozenLake8x8-v1",
        table,
        dict(G=64, B=4, M=100, μ=4),
        table_init(64, 4),
        0.1,
        partial(optimum, "FrozenLake8x8-v1"),
        BEST,
    ),
    "CartPole-v1": game(
        "CartPole-v1",
        network,
        dict(G=8, B=4, M=60, μ=4),
        network_init(4, 32, 2),
        0.01,
        lambda: 488.75,
        "CleanRL's PPO: 488.75 ± 18.40",
    ),
    "Acrobot-v1": game(
        "Acrobot-v1",
        partial(network, scale=ACROBOT_SCALE),
        dict(G=16, B=2, M=100, μ=4),
        network_init(6, 32, 3),
        0.01,
        lambda: -82.48,
        "CleanRL's PPO: -82.48 ± 5.93",
        test=200,
    ),
}


def mean_reward(θ: m.Params, config: m.GRPOConfig, episodes: int) -> float:
    """Average the rewards of some episodes, in the environments that training made."""
    n = config.G * config.B
    parts = [range(2**31 + i, 2**31 + min(i + n, episodes)) for i in range(0, episodes, n)]
    return float(np.concatenate([m.rollout(θ, config, s).rewards for s in parts]).mean())


def measure(seed: int, name: str) -> dict[str, Any]:
    """Train with this seed; return scores before and after on seeds that training never draws."""
    g = GAMES[name]
    config = replace(g.config, seed=seed)
    environments.cache_clear()
    θ_init = g.init(seed)
    steps = Count.steps
    start = time.process_time()
    optimizer = m.AdamWOptimizer(θ_init, g.learning_rate)
    θ_star, _ = m.train_grpo(optimizer, config, report=lambda *_: None)
    seconds = time.process_time() - start
    steps = Count.steps - steps
    return {
        "before": mean_reward(θ_init, config, g.test),
        "after": mean_reward(θ_star, config, g.test),
        "yardstick": g.yardstick(),
        "text": g.yardstick_text,
        "steps": steps,
        "seconds": seconds,
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or GAMES:
        for seed in SEEDS:
            print(name, seed, measure(seed, name), flush=True)
