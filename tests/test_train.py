"""Train: AdamW as published; the loop of play, compare and adjust; its report; what is learned."""

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import sqrt
from string import ascii_lowercase
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval
from test_grpo import BATTLESHIP

import microgrpo as m


@dataclass
class Bandit:
    """The simplest environment: one step and five arms, where arm a pays a by default."""

    n: int
    pay: Any = lambda _, arm: arm

    def reset(self, *, seed: Any) -> Any:
        """Show nothing."""
        self.seed = np.array(seed)
        return np.zeros((self.n, 1)), {}

    def step(self, actions: Any) -> Any:
        """Pay, and end."""
        over = np.ones(self.n, bool)
        return np.zeros((self.n, 1)), self.pay(self.seed, actions), over, over, {}


def softmax(θ: Any, observation: Any) -> Any:
    """Turn logits into probabilities."""
    weights = anp.exp(observation + θ["logits"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


BANDIT = m.GRPOConfig(Bandit, softmax, G=4, B=2, M=4, μ=1, num_val=8)


def five_arms(learning_rate: float = 0.1) -> m.AdamWOptimizer:
    """Start with equal logits, and a number that no policy reads."""
    return m.AdamWOptimizer({"logits": np.zeros(5), "other": np.zeros(1)}, learning_rate)


def slopes(optimizer: m.AdamWOptimizer, *factors: float) -> Any:
    """Make an objective with slopes 3 and 4 in two parameters, times factor k after k steps."""
    return lambda θ, *_: factors[optimizer.t] * (3 * θ["logits"][4] + 4 * θ["other"][0])


def train(optimizer: m.AdamWOptimizer, config: m.GRPOConfig, **objective: Any) -> list[Any]:
    """Train without any overflow or invalid value, and return the arguments of each report."""
    report = Mock()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        m.train_grpo(optimizer, config, report=report, **objective)
    return [call.args for call in report.call_args_list]


@pytest.mark.parametrize(("lr_scale", "expected"), [(1, 0.92), (0.5, 0.96)])
def test_adamw_step_by_hand(lr_scale: float, expected: float) -> None:
    """From 1, with a gradient of 2, α = 0.1, ε = 2 and λ = 0.3, to 1 - α (2 / (√4 + ε) + λ).

    At the first step, with t = 1, bias correction makes m_hat the gradient, and v_hat its square.
    """
    optimizer = m.AdamWOptimizer({"x": np.array([1.0], "f4")}, learning_rate=0.1, ε=2, λ=0.3)
    with np.errstate(all="ignore"):
        optimizer.step({"x": np.array([2.0], "f4")}, np.float64(lr_scale))
    assert optimizer.params["x"].tolist() == pytest.approx([expected])
    assert str(optimizer.params["x"].dtype) == "float32"  # although lr_scale is np.float64


@pytest.mark.parametrize("given", [{}, dict(learning_rate=0.1, β1=0.5, β2=0.75, ε=0.01, λ=0.5)])
def test_adamw_step_is_the_papers(given: dict[str, float]) -> None:
    """It agrees with algorithm 2 of Loshchilov & Hutter, worked out one number at a time."""
    defaults = dict(learning_rate=2e-2, β1=0.9, β2=0.999, ε=1e-8, λ=0.01)
    α, β1, β2, ε, λ = (defaults | given).values()
    rng = np.random.default_rng(0)
    θ_init = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}
    optimizer = m.AdamWOptimizer(θ_init, **given)
    gradients = [{k: rng.normal(size=v.shape) for k, v in θ_init.items()} for _ in range(20)]
    optimizer.step(gradients[0])
    for t, gradient in enumerate(gradients[1:], start=2):
        optimizer.step(gradient, lr_scale=1 / t)
    for name, index in (("a", (0, 0)), ("a", (1, 2)), ("b", (3,))):
        x, mean, square = float(θ_init[name][index]), 0.0, 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[name][index])
            mean = β1 * mean + (1 - β1) * g
            square = β2 * square + (1 - β2) * g * g
            step = mean / (1 - β1**t) / (sqrt(square / (1 - β2**t)) + ε)
            x = x - α / t * (step + λ * x)
        assert optimizer.params[name][index] == pytest.approx(x, rel=1e-12)


def test_train_grpo_makes_the_objective_larger() -> None:
    """J is the parameter itself: its gradient is 1, and the first step adds the learning rate."""
    optimizer = five_arms(learning_rate=0.1)
    train(optimizer, replace(BANDIT, M=1), objective=lambda θ, *_: θ["other"][0])
    assert optimizer.params["other"].tolist() == pytest.approx([0.1])


def test_train_grpo_plays_groups_and_then_validates() -> None:
    """Letters stand for starts, two per batch with G = 3; validation has seeds 0 to 3."""
    pay = Mock(side_effect=np.add)
    environment = partial(Bandit, pay=pay)
    # Both gradient steps on a batch use the games that were played once.
    train(five_arms(), replace(BANDIT, environment=environment, G=3, M=2, μ=2, num_val=4))
    batches = [call.args[0].tolist() for call in pay.call_args_list]
    in_order = dict.fromkeys([0, 1, 2, 3, *chain(*batches)])
    names = dict(zip(in_order, "0123" + ascii_lowercase, strict=False))
    played = ["".join(names[seed] for seed in seeds) for seeds in batches]
    assert played == ["aaabbb", "0123", "cccddd", "0123"]


def test_train_grpo_never_trains_on_the_seeds_of_validation() -> None:
    """Starts are drawn from num_val to 2**31. From 0 up, about eight would be below num_val."""
    pay = Mock(side_effect=np.add)
    config = replace(BANDIT, environment=partial(Bandit, pay=pay), M=1, G=2, B=2**17, num_val=2**17)
    train(five_arms(), config, objective=lambda θ, *_: θ["other"][0])  # grpo_objective may be slow
    starts = pay.call_args_list[0].args[0]
    assert min(starts) >= 2**17
    assert 0.999 * 2**31 < max(starts) < 2**31


def test_train_grpo_draws_other_starts_when_it_is_called_again() -> None:
    """So it does for another config.seed. For a seed, validation always draws the same actions."""
    pay = Mock(side_effect=np.add)
    config = replace(BANDIT, environment=partial(Bandit, pay=pay), M=10)
    for seed in (1, 2, 1):  # the third run is the first again
        optimizer = five_arms(learning_rate=0)
        train(optimizer, replace(config, seed=seed))
        train(optimizer, replace(config, seed=seed))
    seeds, arms = np.swapaxes([call.args for call in pay.call_args_list], 0, 1)  # [120, 8] each
    assert len(np.unique(seeds[::2])) == 80  # starts of training
    assert len(np.unique(arms[::2], axis=0)) == 40  # batches
    assert len(np.unique(arms[1::2], axis=0)) == 2  # validations


def test_train_grpo_validates_after_the_updates() -> None:
    """The first step makes arm 4 certain. With seeds 0 to 7, arm + seed is 7.5 on average."""
    report = Mock()
    config = replace(BANDIT, environment=partial(Bandit, pay=np.add), M=2)
    optimizer = five_arms(learning_rate=100)
    _, rewards_val = m.train_grpo(optimizer, config, slopes(optimizer, 1, 1), report)
    first, second = (call.args for call in report.call_args_list)
    assert (first[:2], second[:2]) == ((0, config), (1, config))
    assert len(set(first[2].actions)) > 1
    assert set(second[2].actions) == {4}
    assert rewards_val.tolist() == [first[3], second[3]] == [7.5, 7.5]


def test_train_grpo_clips_the_gradient_and_lowers_the_rate() -> None:
    """Steps get -∇J, with a norm of at most max_grad_norm, at a rate that falls linearly to 0."""
    scales, steps = [], []

    class Notebook(m.AdamWOptimizer):
        def step(self, gradient: m.Params, lr_scale: float = 1.0) -> None:
            scales.append(lr_scale)
            steps.append((float(gradient["logits"][4]), float(gradient["other"][0])))
            super().step(gradient, lr_scale)

    optimizer = Notebook(five_arms().params)
    objective = slopes(optimizer, *range(8))  # gradients with norms of 0, 5 ... 35
    reports = train(optimizer, replace(BANDIT, μ=2, max_grad_norm=20), objective=objective)
    assert scales == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    np.testing.assert_allclose(steps, [(-3 * k, -4 * k) for k in (0, 1, 2, 3, 4, 4, 4, 4)])
    assert [grad_norm for *_, grad_norm in reports] == [5, 15, 25, 35]  # of last steps, unclipped


def test_train_grpo_differentiates_at_the_parameters_of_each_update() -> None:
    """At 0, J = x - x² has a slope of 1, so AdamW steps to 0.1, where the slope is 0.8."""
    config = replace(BANDIT, M=1, μ=2, max_grad_norm=9)
    report = train(
        five_arms(0.1), config, objective=lambda θ, *_: sum(θ["other"] - θ["other"] ** 2)
    )
    assert report[0][-1] == pytest.approx(0.8)


@pytest.mark.parametrize(
    "bad", [lambda x: x + np.nan, lambda x: x - np.inf, lambda x: anp.sqrt(x - getval(x))]
)
def test_train_grpo_refuses_what_is_not_finite(bad: Any) -> None:
    """J or its gradient is bad in the second batch. The error says so, and no step is taken."""
    optimizer = five_arms()
    objectives = [lambda x: x, bad]
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"nan|inf") as error:
        m.train_grpo(optimizer, BANDIT, lambda θ, *_: objectives[optimizer.t](θ["other"][0]))
    assert "batch 2" in str(error.value)
    assert optimizer.params["other"] == pytest.approx(0.1)


@pytest.mark.parametrize("reward", [0.5, -1234.5, -1.2345e67])
@pytest.mark.parametrize("M", [1, 3, 20, 39, 1301, 100_000])
def test_print_progress_writes_twenty_whole_lines(M: int, reward: float, capsys: Any) -> None:
    """The last batch is among them. Lines have at most 79 columns and no carriage return."""
    batch: Any = SimpleNamespace(rewards=np.array([0.75 * reward, 1.25 * reward]))
    for i in range(M):
        m.print_progress(i, replace(BATTLESHIP, M=M), batch, reward / 2, -reward)
    written = capsys.readouterr().out
    assert re.fullmatch("([ -~]{1,79}\n)+", written)
    lines = [re.findall(r"[-.0-9e+]*\d", line) for line in written.splitlines()]
    shown = [int(batches) for batches, *_ in lines]
    assert len(shown) == min(M, 20)
    assert shown == sorted(set(shown))
    assert shown[-1] == M
    for _, of, *numbers in lines:
        assert int(of) == M
        assert [float(x) for x in numbers] == pytest.approx([reward, reward / 2, -reward], rel=5e-3)


def test_train_grpo_is_called_as_it_always_was(capsys: Any) -> None:
    """The call works as before (with M=3, B=2). More training changes neither θ_init nor θ_star."""
    grpo_config = replace(BATTLESHIP, M=3, B=2)
    θ_init = m.neural_battleship_policy_init()
    optimizer = m.AdamWOptimizer(θ_init, learning_rate=3e-4)
    θ_star, rewards_val = m.train_grpo(optimizer, grpo_config)
    assert rewards_val.shape == (3,)
    assert len(capsys.readouterr().out.splitlines()) == 3
    learned = dict(θ_star)
    train(optimizer, grpo_config)
    np.testing.assert_equal(θ_init, m.neural_battleship_policy_init())
    np.testing.assert_equal(θ_star, learned)
    for name, value in learned.items():
        assert (value != θ_init[name]).any()
        assert (value != optimizer.params[name]).any()
        assert {a[name].dtype for a in (θ_star, optimizer.m, optimizer.v)} == {np.dtype("f4")}
