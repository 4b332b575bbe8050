"""What the KL divergence is for: a GPT that is rewarded for the letter a.

A small GPT learns to write first names, letter by letter, from nearly 7,000 real ones. Its prompt
is the first letter of a name. Then GRPO rewards it with 1 for each a that it writes. What we want
is names rich in a, such as Savannah. But the reward does not say that they have to be names, so the
GPT soon writes

    kaaaaaaaaaaaa

The reward is only a proxy for what we want, and the GPT has found a loophole in it. This is called
reward hacking. What the reward leaves out, the GPT before GRPO still knows: what names look like.
So we make it the reference. GRPO now subtracts β times the KL divergence from it, and the GPT
writes more a's, but in names. The larger β is, the closer the GPT stays to the reference. What is
true of a's here is true of "helpful" in a large language model: whatever measures it is a proxy
too.

This does not show everything. For a large language model, the reward is often a model that has
learned what people prefer, and its loopholes are errors of its own. Here, the reward is one plain
rule. And although β keeps the GPT close, the penalty is not exact: its gradient, that of k3, is
biased (see `kl_divergence` in microgrpo.py).

Run `uv run tests/examples/names.py [seed]`, which takes about half a minute on one core. It trains
three times from the same pre-trained GPT: without a reference, with β = 0.5, and with β = 1. For
the GPT before GRPO, and after each training, it prints eight names and a summary:

    a's         a's per name, not counting the first letter: this is the reward
    KL          nats per name: log(π / π before GRPO), summed over the tokens of a name
    real        the share of names that are in the list
    different   the share of distinct names among 500

The list is from Faker (without uv: `pip install faker`). To use one of your own, change NAMES, for
example to `sorted(set(Path("names.txt").read_text().lower().split()))`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

import random
import sys
from typing import Any

import numpy as np
from autograd import grad
from faker.providers.person.en import Provider
from gpt import END, cross_entropy, gpt_init, gpt_objective, gpt_policy

from microgrpo import AdamWOptimizer, Array, Batch, GRPOConfig, Params, rollout, train_grpo

NAMES = sorted({name.lower() for name in Provider.first_names})  # a set has no order of its own
VOCABULARY = ["<end>", *sorted(set("".join(NAMES)))]
A = VOCABULARY.index("a")
PROMPT = 1  # tokens of a prompt: the first letter
LONGEST = max(len(name) for name in NAMES) + 1  # tokens of the longest name, with its <end>


# %% Texts


def encode(names: list[str]) -> Array:
    """Turn names into tokens [n, LONGEST], one for each letter, filled up with <end>."""
    tokens = np.full((len(names), LONGEST), END)
    for row, name in zip(tokens, names, strict=True):
        row[: len(name)] = [VOCABULARY.index(letter) for letter in name]
    return tokens


def decode(tokens: Array) -> str:
    """Turn the tokens of a name back into letters, without <end>."""
    return "".join(VOCABULARY[token] for token in tokens if token != END)


# %% The environment


class Naming:
    """The environment: an action is a letter or <end>, a trajectory is a name, and each a earns 1.

    Observations are texts [n, LONGEST]: the name so far. An a that is the prompt earns nothing.
    """

    def reset(self, *, seed: list[int]) -> tuple[Array, dict[str, Any]]:
        """Draw a real name for each seed, and show its first letter."""
        names = [random.Random(s).choice(NAMES) for s in seed]
        self.texts = encode([name[:PROMPT] for name in names])
        self.length = PROMPT
        return self.texts.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Append a letter to each name."""
        self.texts[:, self.length] = actions
        self.length += 1
        rewards = (actions == A).astype(float)
        terminated = actions == END
        truncated = np.full(len(actions), self.length == LONGEST)
        return self.texts.copy(), rewards, terminated, truncated, {}


# %% Training


def pre_train(seed: int, steps: int = 1500) -> Params:
    """Train a new GPT on the real names."""
    rng = np.random.default_rng(seed)
    texts = encode(NAMES)
    θ_init = gpt_init(len(VOCABULARY), LONGEST, seed)
    optimizer = AdamWOptimizer(θ_init, learning_rate=0.01)
    for i in range(steps):
        some_texts = texts[rng.integers(len(texts), size=64)]
        gradient = grad(cross_entropy)(optimizer.params, some_texts, PROMPT)
        optimizer.step(gradient, lr_scale=1 - i / steps)
    return optimizer.params


# %% GRPO

LEARNING_RATE = 0.003


def configure(seed: int, θ_before: Params, β: float) -> GRPOConfig:
    """Return the configuration: 60 batches of 16 prompts with 16 names each.

    β = 0 switches the divergence off, and the GPT trains as if it had no reference. But a batch
    holds the reference's probabilities all the same, and these tell how far the GPT has strayed.
    """
    return GRPOConfig(
        environment=lambda _: Naming(),
        policy=gpt_policy,
        reference_policy=lambda texts: gpt_policy(θ_before, texts),
        β=β,
        G=16,
        B=16,
        M=60,
        seed=seed,
    )


def play_test(θ: Params, config: GRPOConfig) -> Batch:
    """Write 2,000 names, from seeds that training does not use.

    The draws are new, but the letters are not: there are only 26, and nearly all occur in training.
    """
    return rollout(θ, config, range(2**31, 2**31 + 2000))


def read_names(batch: Batch) -> list[str]:
    """Return the names in a batch. It begins with the first steps, whose texts are the prompts."""
    return [
        decode(batch.observations[i]) + decode(batch.actions[batch.trajectory == i])
        for i in range(len(batch.rewards))
    ]


def measure(batch: Batch) -> dict[str, float]:
    """Return the a's and the divergence per name, and the shares of real and different names."""
    names = read_names(batch)
    real_names = set(NAMES)
    log_ratio = np.log(batch.π_old / batch.π_ref)  # [S]
    return {
        "a": float(batch.rewards.mean()),
        "kl": float(log_ratio.sum() / len(names)),
        "real": float(np.mean([name in real_names for name in names])),
        # Always among 500: the more names there are, the more of them have been written before.
        "different": len(set(names[:500])) / 500,
    }


def show(when: str, θ: Params, config: GRPOConfig) -> None:
    """Print eight names, and a summary of all of them."""
    batch = play_test(θ, config)
    m = measure(batch)
    print(f"{when}:", *read_names(batch)[:8])
    print(
        f"a's {m['a']:.2f}, KL {m['kl']:.1f}, real {m['real']:.1%}, different {m['different']:.1%}",
        flush=True,
    )


# %% Run


def main(seed: int) -> None:
    """Pre-train once, train from there three times, and compare."""
    θ_before = pre_train(seed)
    show("Before GRPO", θ_before, configure(seed, θ_before, β=0))
    for name, β in {"No reference": 0, "β = 0.5": 0.5, "β = 1": 1}.items():
        config = configure(seed, θ_before, β)
        optimizer = AdamWOptimizer(θ_before, LEARNING_RATE)
        train_grpo(optimizer, config, gpt_objective, report=lambda *_: None)
        show(name, optimizer.params, config)


if __name__ == "__main__":
    np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # so that β survives a pipe
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 42)
