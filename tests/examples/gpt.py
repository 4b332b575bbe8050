"""A small GPT in NumPy, and GRPO's objective for it: the model of shell_game.py and say_five.py.

A text is a row of tokens, filled up with <end>, which is token 0, to a fixed width. So prompts and
replies of different lengths fit into one array, and no token is needed for padding: a policy that
samples <end> has ended its reply. No <end> may stand inside a text.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from microgrpo import Array, Batch, GRPOConfig, Params, grpo_objective

END = 0
HEADS = 4


def gpt_init(vocabulary: int, longest: int, seed: int, width: int = 32) -> Params:
    """Draw the parameters θ, float32, of a GPT with one block that reads up to longest tokens."""
    rng = np.random.default_rng(seed)
    shapes = {
        "token": (vocabulary, width),
        "position": (longest, width),
        "query": (width, width),
        "key": (width, width),
        "value": (width, width),
        "mix": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "out": (width, vocabulary),
    }
    θ = {name: rng.normal(scale=0.1, size=shape) for name, shape in shapes.items()}
    return {name: value.astype(np.float32) for name, value in θ.items()}


def rms_norm(x: Any) -> Any:
    """Scale each vector [..., width] to a root mean square of 1."""
    return x / anp.sqrt(anp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def softmax(logits: Any) -> Any:
    """Turn logits [..., k] into probabilities [..., k]."""
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def attention(θ: Params, x: Any) -> Any:
    """Let each token read from itself and the tokens before it: [n, T, width] -> [n, T, width]."""
    n, T, width = x.shape

    def heads(name: str) -> Any:
        return anp.swapaxes((x @ θ[name]).reshape(n, T, HEADS, -1), 1, 2)

    query, key, value = heads("query"), heads("key"), heads("value")  # [n, HEADS, T, width/HEADS]
    scores = query @ anp.swapaxes(key, 2, 3) / (width / HEADS) ** 0.5  # [n, HEADS, T, T]
    future = np.triu(np.full((T, T), -1e9, np.float32), 1)  # no token reads a later one
    read = softmax(scores + future) @ value  # [n, HEADS, T, width/HEADS]
    return anp.swapaxes(read, 1, 2).reshape(n, T, width) @ θ["mix"]


def gpt(θ: Params, tokens: Array) -> Any:
    """Return the probabilities of the token after each: [n, T] -> [n, T, vocabulary]."""
    x = θ["token"][tokens] + θ["position"][: tokens.shape[1]]  # [n, T, width]
    x = x + attention(θ, rms_norm(x))
    x = x + anp.maximum(rms_norm(x) @ θ["up"], 0) @ θ["down"]
    return softmax(rms_norm(x) @ θ["out"])


def last_token(texts: Array) -> Array:
    """Return the position of the last token before <end>: [n, longest] -> [n]."""
    return (texts != END).sum(axis=1) - 1


def gpt_policy(θ: Params, texts: Array) -> Any:
    """Return the probabilities of the next token: [n, longest] -> [n, vocabulary]."""
    last = last_token(texts)
    return gpt(θ, texts[:, : last.max() + 1])[np.arange(len(texts)), last]


def once_per_reply(batch: Batch) -> Callable[[Params, Array], Any]:
    """Return gpt_policy for the steps of this batch, but reading each reply once, not per token.

    The observation at the last step of a trajectory contains those of all its steps. As no token
    reads a later one, the GPT gives each of them the same probabilities as when it was the last.
    """
    last_step = np.zeros(len(batch.rewards), int)
    last_step[batch.trajectory] = np.arange(
        len(batch.actions)
    )  # later steps overwrite earlier ones

    def policy(θ: Params, texts: Array) -> Any:
        return gpt(θ, texts[last_step])[batch.trajectory, last_token(texts)]  # [S, vocabulary]

    return policy


def gpt_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Compute grpo_objective, reading each reply once."""
    return grpo_objective(θ, batch, replace(config, policy=once_per_reply(batch)))


def surprise(θ: Params, texts: Array, start: int) -> Any:
    """Return the mean of -log π of the tokens from start on: the loss of pre-training."""
    row, position = np.indices(texts.shape)[:, :, start:]
    π = gpt(θ, texts)[row, position - 1, texts[:, start:]]
    return -anp.mean(anp.log(π))
