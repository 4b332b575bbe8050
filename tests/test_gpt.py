"""The GPT of the language-model examples, and the objective that reads each reply once."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from autograd import value_and_grad
from gpt import HEADS, cross_entropy, gpt, gpt_init, gpt_objective, gpt_policy
from shell_game import LONGEST, VOCABULARY, configure

from microgrpo import grpo_objective, rollout


def float64_gpt(vocabulary: int, longest: int, seed: int, width: int = 8) -> Any:
    """Draw parameters that are large enough for every part of the GPT to matter."""
    θ = gpt_init(vocabulary, longest, seed, width)
    return {name: 5 * value.astype(float) for name, value in θ.items()}


def literal_gpt(θ: Any, tokens: Any) -> Any:
    """Work out the probabilities after the last of some tokens, head by head, token by token."""

    def norm(x: Any) -> Any:
        return x / np.sqrt(np.mean(x**2) + 1e-5)

    x = [θ["token"][token] + θ["position"][t] for t, token in enumerate(tokens)]
    size = len(x[0]) // HEADS
    query = norm(x[-1]) @ θ["query"]
    read = np.zeros(len(x[0]))
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = [query[part] @ (norm(y) @ θ["key"])[part] / np.sqrt(size) for y in x]
        for score, y in zip(scores, x, strict=True):
            weight = np.exp(score) / sum(np.exp(scores))
            read[part] += weight * (norm(y) @ θ["value"])[part]
    last = x[-1] + read @ θ["projection"]
    last = last + np.maximum(norm(last) @ θ["up"], 0) @ θ["down"]
    p = np.exp(norm(last) @ θ["unembedding"])
    return p / p.sum()


def test_the_gpt_is_one_block_of_a_transformer() -> None:
    """The probabilities after each token are those given by loops over it and those before it."""
    θ = float64_gpt(7, 6, seed=0)
    tokens = np.random.default_rng(0).integers(7, size=(3, 6))
    π = gpt(θ, tokens)
    for i in range(3):
        for t in range(6):
            np.testing.assert_allclose(π[i, t], literal_gpt(θ, tokens[i, : t + 1]), rtol=1e-6)


def test_the_gpt_is_causal() -> None:
    """Other tokens from position 4 on change nothing before it, and something from there on."""
    one, other = gpt(float64_gpt(7, 6, seed=1), np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 0]]))
    np.testing.assert_array_equal(one[:4], other[:4])
    assert abs(one[4:] - other[4:]).max(axis=1).min() > 1e-3


def test_the_gpt_stays_float32_and_follows_from_its_seed() -> None:
    """Parameters, probabilities and gradients are float32; the initial scale is 0.1."""
    θ, again, other = (gpt_init(8, 23, seed) for seed in (1, 1, 2))
    assert all((θ[name] == again[name]).all() and (θ[name] != other[name]).any() for name in θ)
    texts = np.ones((2, 5), int)
    _, gradient = value_and_grad(cross_entropy)(θ, texts, 2)
    arrays = [*θ.values(), *gradient.values(), gpt(θ, texts)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    scale = np.concatenate([value.ravel() for value in θ.values()]).std()
    assert scale == pytest.approx(0.1, rel=0.02)


def test_the_policy_continues_after_the_last_token_that_is_not_end() -> None:
    """Also where <end>, which is token 0, stands in a prompt, and where a text is full."""
    θ = float64_gpt(7, 5, seed=2)
    texts = np.array([[3, 0, 2, 0, 0], [0, 4, 0, 0, 0], [1, 2, 3, 4, 5], [6, 0, 0, 0, 0]])
    lengths = [3, 2, 5, 1]
    expected = [literal_gpt(θ, text[:n]) for text, n in zip(texts, lengths, strict=True)]
    np.testing.assert_allclose(gpt_policy(θ, texts), expected, rtol=1e-6)


def test_each_reply_is_read_once() -> None:
    """J and its gradient are those of grpo_objective, which reads a reply once per token."""
    θ = float64_gpt(len(VOCABULARY), LONGEST, seed=0)
    base = float64_gpt(len(VOCABULARY), LONGEST, seed=1)
    config = replace(configure(seed=0), reference_policy=partial(gpt_policy, base), β=0.1, G=8)
    batch = rollout(θ, config, np.repeat([1, 2, 3], 8))
    assert max(np.bincount(batch.trajectory)) == 9  # some replies are cut
    batch = batch._replace(rewards=np.random.default_rng(0).random(24))
    moved = {name: value + 0.1 * base[name] for name, value in θ.items()}
    J, gradient = value_and_grad(gpt_objective)(moved, batch, config)
    J_slow, gradient_slow = value_and_grad(grpo_objective)(moved, batch, config)
    assert pytest.approx(J_slow, rel=1e-9) == J
    for name, slow in gradient_slow.items():
        assert abs(slow).max() > 1e-4
        np.testing.assert_allclose(gradient[name], slow, rtol=1e-6, atol=1e-9)


def test_cross_entropy_is_the_mean_of_minus_log_probabilities() -> None:
    """Over the tokens of replies, and each <end> after them."""
    θ = float64_gpt(5, 6, seed=0)
    texts = np.array([[1, 2, 3, 4, 0, 0], [4, 3, 2, 0, 0, 0]])
    logs = [np.log(literal_gpt(θ, text[:t])[text[t]]) for text in texts for t in range(2, 6)]
    assert cross_entropy(θ, texts, start=2) == pytest.approx(-np.mean(logs), rel=1e-6)
