"""Train: AdamW as published, the loop of play, compare and adjust, its report, what is learned."""

import re
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval
from test_grpo import BATTLESHIP

import microgrpo as m


@dataclass
class Bandit:
    """The simplest environment: one step and five arms, of which arm a pays a by default."""

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


def slopes(*factors: float) -> Any:
    """Make an objective with slopes 3 and 4 in two parameters, scaled on call k by factor k."""
    remaining = iter(factors)
    return lambda θ, *_: next(remaining) * (3 * θ["logits"][4] + 4 * θ["other"][0])


def train(optimizer: m.AdamWOptimizer, config: m.GRPOConfig, **objective: Any) -> list[Any]:
    """Train without any overflow or invalid value, and return the arguments of each report."""
    report = Mock()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        m.train_grpo(optimizer, config, report=report, **objective)
    return [call.args for call in report.call_args_list]


@pytest.mark.parametrize("given", [{}, dict(learning_rate=0.1, β1=0.5, β2=0.75, ε=0.01, λ=0.5)])
def test_adamw_takes_the_steps_of_the_paper(given: dict[str, float]) -> None:
    """Algorithm 2 of Loshchilov & Hutter, one number at a time."""
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


def test_numbers_from_numpy_keep_parameters_float32() -> None:
    """A sweep over np.logspace, say, passes np.float64, which would spread. On 10 x 10 tiles."""
    rules = m.BattleshipRules(10, (2, 3, 3, 4, 5))
    float64s = np.array([0.02, 0.9, 0.999, 1e-8, 0.01])
    optimizer = m.AdamWOptimizer(m.neural_battleship_policy_init(rules), *float64s)
    numbers: Any = {name: np.float64(0.2) for name in ("ε", "β", "max_grad_norm")}
    environment = partial(m.BattleshipEnv, rules=rules)
    train(optimizer, replace(BATTLESHIP, environment=environment, B=1, M=4, num_val=1, **numbers))
    optimizer.step(optimizer.params, lr_scale=np.float64(0.5))
    assert {value.dtype for value in optimizer.params.values()} == {np.dtype(np.float32)}


def test_groups_share_a_start_and_validation_is_always_the_same() -> None:
    """Training draws new seeds from num_val to 2**31, other ones when it is called again."""
    pay = Mock(side_effect=np.add)
    config = replace(BANDIT, environment=partial(Bandit, pay=pay), M=10)
    for seed in (1, 2):
        optimizer = five_arms(learning_rate=0)
        train(optimizer, replace(config, seed=seed))
        train(optimizer, replace(config, seed=seed))
    # Were starts drawn from 0 up, about four of so many would be validation seeds.
    train(optimizer, replace(config, M=1, G=2, B=2**16, num_val=2**17))
    *played, (starts, _), _ = [call.args for call in pay.call_args_list]
    assert 2**17 <= min(starts) < max(starts) < 2**31 < 1.001 * max(starts)

    seeds, arms = np.swapaxes(played, 0, 1)  # [80, 8] each
    assert (seeds[1::2] == np.arange(8)).all()  # validation
    assert len(np.unique(arms[1::2], axis=0)) == 2  # one for each config.seed
    assert len(np.unique(arms[::2], axis=0)) == 40
    groups = seeds[::2].reshape(80, 4)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups)) == 80


def test_validation_comes_after_the_gradient_steps() -> None:
    """The first step already makes arm 4 certain; the reward is the arm plus the seed."""
    report = Mock()
    config = replace(BANDIT, environment=partial(Bandit, pay=np.add), M=2)
    _, rewards_val = m.train_grpo(five_arms(learning_rate=100), config, slopes(1, 1), report)
    first, second = (call.args for call in report.call_args_list)
    assert (first[:2], second[:2]) == ((0, config), (1, config))
    assert len(set(first[2].actions)) > 1
    assert set(second[2].actions) == {4}
    assert rewards_val.tolist() == [first[3], second[3]] == [7.5, 7.5]


def test_steps_climb_the_objective_that_is_passed() -> None:
    """Steps get -∇J, no longer than max_grad_norm, at a rate that falls linearly to 0."""
    optimizer = five_arms()
    with patch.object(optimizer, "step", wraps=optimizer.step) as step:
        config = replace(BANDIT, μ=2, max_grad_norm=20)
        reports = train(optimizer, config, objective=slopes(*range(1, 9)))
    given = [(call.args[0]["logits"][4], *call.args[0]["other"]) for call in step.call_args_list]
    assert given == [(-3 * k, -4 * k) for k in (1, 2, 3, 4, 4, 4, 4, 4)]
    scales = [call.kwargs["lr_scale"] for call in step.call_args_list]
    assert scales == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    assert [grad_norm for *_, grad_norm in reports] == [10, 20, 30, 40]  # last step's, unclipped


NOT_FINITE: dict[str, Any] = {
    "J is nan, .* 5": lambda x: x + np.nan,
    "J is -inf, .* 5": lambda x: x - np.inf,
    "J is 0.0, .* inf": lambda x: anp.sqrt(x - getval(x)),
}


@pytest.mark.parametrize("message", NOT_FINITE)
def test_what_is_not_finite_is_an_error(message: str) -> None:
    """In J or in its gradient, here in the second batch: it is named, and no step is taken."""
    optimizer = five_arms()
    objectives = iter([lambda x: x, NOT_FINITE[message]])
    rising = slopes(1, 1)
    with pytest.raises(FloatingPointError, match=f"batch 2: {message}"), np.errstate(all="ignore"):
        m.train_grpo(optimizer, BANDIT, lambda θ, *_: next(objectives)(rising(θ)), lambda *_: None)
    assert optimizer.params["other"] == pytest.approx(0.1)


@pytest.mark.parametrize("reward", [0.5, -1234.5, 123456.7])
@pytest.mark.parametrize(("M", "shown"), [(3, [1, 2, 3]), (205, [1, *range(10, 205, 10)])])
def test_progress_is_whole_lines(M: int, shown: list[int], reward: float, monkeypatch: Any) -> None:
    """A header and about twenty lines of at most 79 columns, also where stdout has no isatty."""
    written: list[str] = []
    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=written.append, flush=lambda: None))
    batch = m.rollout(five_arms().params, BANDIT, [1, 2])._replace(
        π_old=np.array([0.5, 0.125]),
        π_ref=np.array([0.5, 0.5]),
        rewards=np.array([reward - 1, reward + 1]),
    )
    for i in range(M):
        m.print_progress(i, replace(BATTLESHIP, M=M), batch, reward / 2, 123456.7)
    assert re.fullmatch("([ -~]{1,79}\n)+", "".join(written))  # nor any carriage return
    header, *lines = "".join(written).splitlines()
    kl = (0 + (4 - np.log(4) - 1)) / 2
    entropy = (np.log(2) + np.log(8)) / 2
    for line, batches in zip(lines, shown, strict=True):
        assert len(line.split()) == len(header.split())
        numbers = [float(number) for number in re.findall("[-.0-9]+", line)]
        expected = [batches, M, reward, reward / 2, 123456.7, kl, entropy]
        assert numbers == pytest.approx(expected, abs=0.0005)


def test_the_call_that_started_it_all(capsys: Any) -> None:
    """It runs as it stands (with M=3). More training changes neither θ_init nor θ_star."""
    grpo_config = replace(BATTLESHIP, M=3)
    θ_init = m.neural_battleship_policy_init()
    optimizer = m.AdamWOptimizer(θ_init, learning_rate=3e-4)
    θ_star, rewards_val = m.train_grpo(optimizer, grpo_config)
    assert rewards_val.shape == (3,)
    assert len(capsys.readouterr().out.splitlines()) == 4
    learned = dict(θ_star)
    train(optimizer, grpo_config)
    for name, value in m.neural_battleship_policy_init().items():
        np.testing.assert_array_equal(θ_init[name], value)
        np.testing.assert_array_equal(θ_star[name], learned[name])
        assert (learned[name] != value).any()
        assert (learned[name] != optimizer.params[name]).any()
        assert {a[name].dtype for a in (θ_star, optimizer.m, optimizer.v)} == {value.dtype}
