"""A GPT learns to say 5, off-policy, from a replay buffer.

The question is "What number between 0 and 9 am I thinking of right now? You MUST ONLY answer with a
single integer." The GPT reads it word by word. It is first pre-trained on 100 replies: most are
sentences, and one is a bare 5. Then GRPO rewards bare digits: the closer to 5, the more. A small
penalty on the KL divergence keeps the GPT near the pre-trained one.

The training loop is this script's own. Each train step adds a batch of 25 rollouts to a replay
buffer, which holds the last two batches, and takes 5 gradient steps, each on one of the two. The
older batch was played by an older policy. That is what off-policy means, and what the ratio and the
clip are there for.

Run `uv run tests/examples/say_five.py [seed]`, which takes about ten seconds on one core. It prints
each rollout with its reward, and the objective of each gradient step. The last line says how many
replies are exactly "5" before and after training.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

import random
import sys
from collections import deque
from typing import Any

import numpy as np
from autograd import grad, value_and_grad
from gpt import END, cross_entropy, gpt_init, gpt_objective, gpt_policy

from microgrpo import AdamWOptimizer, Array, Batch, GRPOConfig, Params, rollout

QUESTION = (
    "What number between 0 and 9 am I thinking of right now? "
    "You MUST ONLY answer with a single integer."
)
DIGITS = list("0123456789")
TRAIN_STEPS = 100
ROLLOUTS = 25
GRADIENT_STEPS = 5


# %% Texts


def example_replies() -> list[str]:
    """Return 100 replies for pre-training: ten are a bare digit, and one of these is 5."""
    replies = 30 * ["I cannot read minds"]
    for digit in DIGITS:
        replies += 4 * [f"The number I am thinking of is **{digit}**"]
        replies += 2 * [f"You are thinking of **{digit}** right now"]
        replies += [digit]
    return replies


WORDS = {*QUESTION.split(), *" ".join(example_replies()).split()}
VOCABULARY = ["<end>", *sorted(WORDS)]
PROMPT = len(QUESTION.split())  # tokens
LONGEST = PROMPT + 10  # replies are cut after ten tokens


def encode(texts: list[str]) -> Array:
    """Turn texts into tokens [n, LONGEST], one for each word, filled up with <end>."""
    tokens = np.full((len(texts), LONGEST), END)
    for row, text in zip(tokens, texts, strict=True):
        words = text.split()
        row[: len(words)] = [VOCABULARY.index(word) for word in words]
    return tokens


def decode(tokens: Array) -> str:
    """Turn the tokens of a reply back into text, without <end>."""
    return " ".join(VOCABULARY[token] for token in tokens if token != END)


# %% The environment


def reward(reply: str) -> float:
    """Return 1 for 5, less for other digits, and 0 for everything else."""
    if reply not in DIGITS:
        return 0.0
    return 1 - abs(int(reply) - 5) / 9


class Conversation:
    """The environment: an action is a token, a trajectory is a reply.

    Observations are texts [n, LONGEST]: the question, and the reply so far.
    """

    def reset(self, *, seed: list[int]) -> tuple[Array, dict[str, Any]]:
        """Ask the question, which is the same for all seeds."""
        self.texts = encode([QUESTION for _ in seed])
        self.length = PROMPT
        return self.texts.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Append a token to each reply, and reward those that are over."""
        self.texts[:, self.length] = actions
        self.length += 1
        terminated = actions == END
        truncated = np.full(len(actions), self.length == LONGEST)
        replies = [decode(text[PROMPT:]) for text in self.texts]
        rewards = np.array([reward(reply) for reply in replies]) * (terminated | truncated)
        return self.texts.copy(), rewards, terminated, truncated, {}


# %% Training


def pre_train(seed: int) -> Params:
    """Train a new GPT on the example replies."""
    texts = encode([f"{QUESTION} {reply}" for reply in example_replies()])
    θ_init = gpt_init(len(VOCABULARY), LONGEST, seed)
    optimizer = AdamWOptimizer(θ_init, learning_rate=0.01)
    for _ in range(200):
        optimizer.step(grad(cross_entropy)(optimizer.params, texts, PROMPT))
    return optimizer.params


def print_rollouts(batch: Batch) -> None:
    """Print the reward and the text of each reply."""
    for i, earned in enumerate(batch.rewards):
        reply = batch.actions[batch.trajectory == i]
        print(f"Reward: {earned:.3f}; Response: {decode(reply)}")


def train(optimizer: AdamWOptimizer, config: GRPOConfig) -> None:
    """Alternate between rollouts and gradient steps on a replay buffer."""
    rng = random.Random(config.seed)
    replay_buffer: deque[Batch] = deque(maxlen=2)  # the batches of the last two train steps
    for i in range(TRAIN_STEPS):
        print("-- Generating rollouts")
        batch = rollout(optimizer.params, config, ROLLOUTS * [i])
        replay_buffer.append(batch)
        print_rollouts(batch)

        print("-- Training")
        for k in range(GRADIENT_STEPS):
            replayed = rng.choice(replay_buffer)  # often played by an older policy: ρ is not 1
            J, gradient = value_and_grad(gpt_objective)(optimizer.params, replayed, config)
            descent = {name: -g for name, g in gradient.items()}
            optimizer.step(descent, lr_scale=1 - i / TRAIN_STEPS)
            step = f"Grad step {k + 1}/{GRADIENT_STEPS} in train step {i + 1}/{TRAIN_STEPS}"
            print(f"{step} completed. Objective: {J:z.6f}")


def share_of_fives(θ: Params, config: GRPOConfig) -> float:
    """Return the share of 1,000 replies that are exactly 5, which is what a reward of 1 means."""
    return float(np.mean(rollout(θ, config, range(1000, 2000)).rewards == 1))


def main(seed: int) -> float:
    """Pre-train, train and compare; return the share of fives after training."""
    θ_base = pre_train(seed)
    config = GRPOConfig(
        environment=lambda _: Conversation(),
        policy=gpt_policy,
        reference_policy=lambda texts: gpt_policy(θ_base, texts),
        β=0.01,  # weight of the KL divergence from the pre-trained model
        G=ROLLOUTS,
        seed=seed,
    )
    optimizer = AdamWOptimizer(θ_base, learning_rate=0.001)
    train(optimizer, config)
    before = share_of_fives(θ_base, config)
    after = share_of_fives(optimizer.params, config)
    print(f'Replies that are exactly "5": {before:.1%} before training, {after:.1%} after')
    return after


if __name__ == "__main__":
    np.empty(30 * 2**20, np.uint8)  # for speed, as in microgrpo.py
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 42)
