"""A small GPT in NumPy, and GRPO's objective for it: the model of shell_game.py and say_five.py.

A text is a row of tokens, filled up with <end>, which is token 0, to a fixed width. So prompts and
replies of different lengths fit into one array. There is no other token for padding, nor a mask: a
policy that samples <end> has ended its reply. A text goes up to its last token that is not <end>.

For prompts of your own, write an environment like those of say_five.py and shell_game.py: the seed
chooses the prompt (training uses seeds below 2**31, so that the others can serve for a test), texts
are filled up with <end>, an action is a token, and <end> ends a trajectory. Train with
gpt_objective, which reads each reply once.
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
        "projection": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "unembedding": (width, vocabulary),
    }
    θ = {name: rng.normal(scale=0.1, size=shape) for name, shape in shapes.items()}
    return {name: value.astype(np.float32) for name, value in θ.items()}


# %% The model


def rms_norm(x: Any) -> Any:
    """Scale each vector [..., width] to a root mean square of 1."""
    return x / anp.sqrt(anp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def softmax(logits: Any) -> Any:
    """Turn logits [..., k] into probabilities [..., k]."""
    p = anp.exp(logits - getval(logits).max(axis=-1, keepdims=True))
    return p / anp.sum(p, axis=-1, keepdims=True)


def attention(θ: Params, x: Any) -> Any:
    """Let each token read from itself and the tokens before it: [n, T, width] -> [n, T, width].

    This is causal self-attention. Each head compares its own part of the query and the key.
    """
    n, T, width = x.shape

    def split(y: Any) -> Any:  # [n, T, width] -> [n, HEADS, T, width/HEADS]
        return anp.swapaxes(y.reshape(n, T, HEADS, -1), 1, 2)

    query = split(x @ θ["query"])
    key = split(x @ θ["key"])
    value = split(x @ θ["value"])
    scores = query @ anp.swapaxes(key, 2, 3) / (width / HEADS) ** 0.5  # [n, HEADS, T, T]
    future = np.triu(np.full((T, T), -1e9, np.float32), 1)  # no token reads a later one
    read = softmax(scores + future) @ value  # [n, HEADS, T, width/HEADS]
    return anp.swapaxes(read, 1, 2).reshape(n, T, width) @ θ["projection"]


def gpt(θ: Params, tokens: Array) -> Any:
    """Return the probabilities of the token after each: [n, T] -> [n, T, vocabulary]."""
    x = θ["token"][tokens] + θ["position"][: tokens.shape[1]]  # [n, T, width]
    x = x + attention(θ, rms_norm(x))
    x = x + anp.maximum(rms_norm(x) @ θ["up"], 0) @ θ["down"]
    return softmax(rms_norm(x) @ θ["unembedding"])


# %% What pre-training and GRPO need


def last_token(texts: Array) -> Array:
    """Return the position of the last token that is not <end>: [n, longest] -> [n]."""
    position = np.arange(texts.shape[1])  # [longest]
    return (position * (texts != END)).max(axis=1)


def gpt_policy(θ: Params, texts: Array) -> Any:
    """Return the probabilities of the next token: [n, longest] -> [n, vocabulary]."""
    last = last_token(texts)
    return gpt(θ, texts[:, : last.max() + 1])[np.arange(len(texts)), last]


def once_per_reply(batch: Batch) -> Callable[[Params, Array], Any]:
    """Return gpt_policy for the steps of this batch, but reading each reply once, not per token.

    The observation at the last step of a trajectory contains those of all its steps. As no token
    reads a later one, the GPT gives each of them the same probabilities as when it was the last.
    """
    step = np.arange(len(batch.actions))  # [S]
    last_step = np.zeros(len(batch.rewards), int)  # [n]
    last_step[batch.trajectory] = step  # later steps overwrite earlier ones

    def policy(θ: Params, texts: Array) -> Any:
        return gpt(θ, texts[last_step])[batch.trajectory, last_token(texts)]  # [S, vocabulary]

    return policy


def gpt_objective(θ: Params, batch: Batch, config: GRPOConfig) -> Any:
    """Compute grpo_objective, reading each reply once."""
    return grpo_objective(θ, batch, replace(config, policy=once_per_reply(batch)))


def cross_entropy(θ: Params, texts: Array, start: int) -> Any:
    """Return the loss of pre-training: the mean of -log π over all tokens from position start on.

    That includes every <end> after a text, which is easy to learn and harmless.
    """
    row, position = np.indices(texts.shape)[:, :, start:]  # [n, T - start] each
    π = gpt(θ, texts)[row, position - 1, texts[:, start:]]  # [n, T - start]
    return -anp.mean(anp.log(π))
