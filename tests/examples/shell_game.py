"""DeepSeek-R1 in miniature: a GPT that finds out that thinking pays.

The shell game: a ball is under one of five cups, and six times, two cups change places. Where is
the ball now? The GPT reads the game letter by letter, for example

    C A B D E B C A E B D B C <think>

The ball starts under C; then A and B change places, then D and E, and so on. One block of attention
is too shallow to follow six swaps at a glance. But the GPT can write down where the ball is after
each swap, read that, and then answer:

    C C B B D D </think> D <end>

It is first pre-trained to imitate people: about half of them answer at once, and few think to the
end. Then GRPO rewards right answers to new prompts, and nothing else. It elicits a skill that the
GPT already has but seldom uses: replies become longer, and right.

Run `uv run tests/examples/shell_game.py [seed]`, which takes about half a minute on one core. It
prints three replies before GRPO, and three after it. The line below them sums up eight replies to
each of 250 new prompts: the share of right ones, the share of prompts with at least one right reply
in eight, and the mean length. In between, it prints how replies become right and long in training.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

import random
import sys
from typing import Any

import numpy as np
from autograd import grad
from gpt import END, cross_entropy, gpt_init, gpt_objective, gpt_policy

from microgrpo import AdamWOptimizer, Array, Batch, GRPOConfig, Params, rollout, train_grpo

CUPS = "ABCDE"
SWAPS = 6
VOCABULARY = ["<end>", "<think>", "</think>", *CUPS]
PROMPT = 2 + 2 * SWAPS  # tokens of a prompt: the ball, six pairs of cups, <think>
LONGEST = PROMPT + SWAPS + 3  # and with the longest reply: six places, </think>, answer, <end>


# %% The game


def shell_game(rng: random.Random) -> tuple[list[str], list[str]]:
    """Draw a game: its prompt, and the place of the ball after each swap."""
    ball = rng.choice(CUPS)
    prompt = [ball]
    places = []
    for _ in range(SWAPS):
        one, other = sorted(rng.sample(CUPS, 2))
        prompt += [one, other]
        if ball in (one, other):
            ball = one if ball == other else other
        places.append(ball)
    return [*prompt, "<think>"], places


def encode(texts: list[list[str]]) -> Array:
    """Turn lists of words into tokens [n, LONGEST], filled up with <end>."""
    tokens = np.full((len(texts), LONGEST), END)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = [VOCABULARY.index(word) for word in text]
    return tokens


class ShellGame:
    """The environment: an action is a token, a trajectory is a reply, a right answer earns 1.

    Observations are texts [n, LONGEST]: the prompt, and the reply so far.
    """

    def reset(self, *, seed: list[int]) -> tuple[Array, dict[str, Any]]:
        """Draw a prompt for each seed."""
        games = [shell_game(random.Random(s)) for s in seed]
        self.texts = encode([prompt for prompt, _ in games])
        right_ends = encode([["</think>", places[-1], "<end>"] for _, places in games])
        self.right_ends = right_ends[:, :3]
        self.length = PROMPT
        return self.texts.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Append a token to each reply."""
        self.texts[:, self.length] = actions
        self.length += 1
        ends = self.texts[:, self.length - 3 : self.length]
        rewards = (ends == self.right_ends).all(axis=1).astype(float)
        terminated = actions == END
        truncated = np.full(len(actions), self.length == LONGEST)
        return self.texts.copy(), rewards, terminated, truncated, {}


# %% Pre-training


def person(rng: random.Random) -> list[str]:
    """Draw a game and a reply to it. Everyone answers right, but few trace every swap.

    7 of 13 answer at once, and for each number of swaps from 1 to 6, 1 of 13 traces the ball for as
    many. After only a few traced swaps, the GPT cannot predict the answer, so it learns to guess.
    """
    prompt, places = shell_game(rng)
    traced = max(0, rng.randint(-SWAPS, SWAPS))
    return [*prompt, *places[:traced], "</think>", places[-1], "<end>"]


def pre_train(seed: int, steps: int = 1500) -> AdamWOptimizer:
    """Train a new GPT to imitate people."""
    rng = random.Random(seed)
    θ_init = gpt_init(len(VOCABULARY), LONGEST, seed)
    optimizer = AdamWOptimizer(θ_init, learning_rate=0.006)
    for i in range(steps):
        texts = encode([person(rng) for _ in range(32)])
        gradient = grad(cross_entropy)(optimizer.params, texts, PROMPT)
        optimizer.step(gradient, lr_scale=1 - i / steps)
    return optimizer


# %% GRPO

# GRPO goes on with the optimizer of pre-training, at half its learning rate. The first steps of a
# new AdamW have full size however small the gradient is, and can ruin what the GPT has learned.
LEARNING_RATE = 0.003


def configure(seed: int) -> GRPOConfig:
    """Return the configuration: 50 batches of 16 prompts with 16 replies each, no divergence."""
    return GRPOConfig(
        environment=lambda _: ShellGame(),
        policy=gpt_policy,
        G=16,
        B=16,
        M=50,
        seed=seed,
    )


def report(i: int, config: GRPOConfig, batch: Batch, reward_val: float, grad_norm: float) -> None:
    """Print how many replies of a batch are right, and how long they are."""
    if (i + 1) % 5 == 0:
        tokens = len(batch.actions) / len(batch.rewards)
        right = batch.rewards.mean()
        print(
            f"batch {i + 1:2d}/{config.M}  right {right:.1%}, tokens {tokens:.1f}",
            flush=True,
        )


def play_test(θ: Params, config: GRPOConfig) -> Batch:
    """Reply eight times to each of 250 new prompts."""
    return rollout(θ, config, np.repeat(range(2**31, 2**31 + 250), 8))


def measure(batch: Batch) -> dict[str, float]:
    """Return the share of right replies, that of prompts ever solved (pass@8), and the length."""
    return {
        "right": float(batch.rewards.mean()),
        "once_in_8": float(batch.rewards.reshape(-1, 8).max(axis=1).mean()),
        "tokens": len(batch.actions) / len(batch.rewards),
    }


def show(θ: Params, config: GRPOConfig) -> None:
    """Print three replies to new prompts, and how good all replies are."""
    batch = play_test(θ, config)
    for i in (0, 8, 16):
        *_, last_step = np.flatnonzero(batch.trajectory == i)
        text = batch.observations[last_step]
        tokens = [*text[text != END], batch.actions[last_step]]
        verdict = "right" if batch.rewards[i] else "wrong"
        print(*[VOCABULARY[token] for token in tokens], verdict)
    m = measure(batch)
    print(f"right {m['right']:.1%}, once in 8 {m['once_in_8']:.1%}, tokens {m['tokens']:.1f}")


# %% Run

if __name__ == "__main__":
    np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 42
    config = configure(seed)
    optimizer = pre_train(seed)
    print("Before GRPO:")
    show(optimizer.params, config)
    optimizer.learning_rate = LEARNING_RATE
    train_grpo(optimizer, config, gpt_objective, report)
    print("After GRPO:")
    show(optimizer.params, config)
