"""Any game of Gymnasium: CartPole, where the policy has to keep a pole upright for 500 steps.

Gymnasium's vector environments work with `train_grpo` as they are.

`uv run tests/examples/cartpole.py` trains for about ten seconds. It prints progress, then the mean
return of 100 episodes before and after training. In another folder, beside a copy of microgrpo.py,
the command is `uv run --with autograd --with numpy --with gymnasium cartpole.py`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

from functools import lru_cache
from typing import Any

import autograd.numpy as anp
import gymnasium
import numpy as np

import microgrpo as m


class Rest(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Let an episode that has ended rest until the next reset with a seed.

    Otherwise Gymnasium's vector environments start another one by themselves, without a seed, and
    play it although nobody learns from it. Training works without this class, but takes longer.
    """

    last: Any = None  # what each step returns once the episode has ended

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. But without a seed, leave one that has ended as it is."""
        if seed is None and self.last is not None:
            return self.last[0], {}
        self.last = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Take an action, unless the episode has ended."""
        if self.last is not None:
            return self.last
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.last = observation, 0.0, terminated, truncated, {}
        return observation, reward, terminated, truncated, info


# Threads would share what is kept, and mix up their games: train in one thread at a time.
@lru_cache  # environments take long to make, and every reset starts them afresh: keep them
def environment(n: int) -> Any:
    """Return n environments in lockstep."""
    # Name the vectorization mode: without it, some environments refuse a list of seeds.
    return gymnasium.make_vec("CartPole-v1", n, vectorization_mode="sync", wrappers=[Rest])


def policy(θ: m.Params, observation: m.Array) -> Any:
    """Map [n, 4] to the probabilities [n, 2] of pushing the cart to the left or to the right."""
    logits = anp.tanh(observation @ θ["W1"]) @ θ["W2"]
    p = anp.exp(logits)
    return p / anp.sum(p, axis=-1, keepdims=True)


if __name__ == "__main__":
    config = m.GRPOConfig(environment, policy, G=8, B=4, M=40, μ=4, num_val=8)
    rng = np.random.default_rng(config.seed)
    θ_init = {"W1": rng.normal(size=(4, 32)), "W2": 0.1 * rng.normal(size=(32, 2))}
    θ_star, _ = m.train_grpo(m.AdamWOptimizer(θ_init, learning_rate=0.02), config)

    test_seeds = range(2**31, 2**31 + 100)  # training uses only smaller seeds
    for when, θ in {"before": θ_init, "after": θ_star}.items():
        mean_return = m.rollout(θ, config, test_seeds).rewards.mean()
        print(f"Mean return of 100 episodes {when} training: {mean_return:.0f} of 500")
