"""Train: AdamW as published, the loop of play, compare and adjust, its report, what is learned."""

import re
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any
from unittest.mock import Mock, patch

import autograd.numpy as anp
import numpy as np
import pytest

from microgrpo import (
    AdamWOptimizer,
    BattleshipEnv,
    BattleshipRules,
    GRPOConfig,
    Params,
    neural_battleship_policy,
    neural_battleship_policy_init,
    print_progress,
    reference_battleship_policy,
    rollout,
    train_grpo,
)


@dataclass
class Bandit:
    """The simplest environment: one step, five arms, of which arm a pays a, if not said else."""

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


def softmax(θ: Params, observation: Any) -> Any:
    """Draw an arm by its logit."""
    weights = anp.exp(observation + θ["logits"])
    return weights / anp.sum(weights, axis=-1, keepdims=True)


BANDIT = GRPOConfig(Bandit, softmax, G=4, B=2, M=4, μ=1, num_val=8)
BATTLESHIP = GRPOConfig(BattleshipEnv, neural_battleship_policy, reference_battleship_policy, M=4)


def five_arms(learning_rate: float = 0.1) -> AdamWOptimizer:
    """Start with equal logits, and a number that no policy reads."""
    return AdamWOptimizer({"logits": np.zeros(5), "other": np.zeros(1)}, learning_rate)


def slopes(*factors: float) -> Any:
    """Make an objective that rises by 3 and 4 with two of the parameters, times its k-th factor."""
    remaining = iter(factors)
    return lambda θ, *_: next(remaining) * (3 * θ["logits"][4] + 4 * θ["other"][0])


def train(optimizer: AdamWOptimizer, config: GRPOConfig, objective: Any = None) -> list[Any]:
    """Train without any overflow or invalid value, and return the metrics that were reported."""
    report = Mock()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        train_grpo(optimizer, config, objective, report)
    return [call.args[1] for call in report.call_args_list]


# %% AdamW


def test_adamw_takes_the_steps_of_the_paper() -> None:
    """Algorithm 2 of Loshchilov & Hutter, for one number, with a desk calculator."""
    optimizer = AdamWOptimizer({"x": np.array([2.0])}, 0.1, β1=0.5, β2=0.75, ε=0.01, λ=0.5)
    # m = 0.5·4 = 2, v = 0.25·16 = 4; corrected 2/0.5 = 4 and 4/0.25 = 16.
    # x = 2 - 0.1·4/(√16 + 0.01) - 0.1·0.5·2 = 2 - 0.4/4.01 - 0.1
    optimizer.step({"x": np.array([4.0])})
    assert optimizer.params["x"] == pytest.approx(1.8002493765586034, rel=1e-12)
    # m = 0.5·2 - 0.5·1 = 0.5, v = 0.75·4 + 0.25·1 = 3.25; corrected 0.5/0.75 and 3.25/0.4375.
    # x = 1.80024938 - 0.1·0.66666667/(√7.42857143 + 0.01) - 0.05·1.80024938
    optimizer.step({"x": np.array([-1.0])})
    assert optimizer.params["x"] == pytest.approx(1.6858663437316209, rel=1e-12)


def test_adamw_agrees_with_plain_loops() -> None:
    """Many steps, two arrays, the defaults, a falling rate: the paper's lines one by one."""
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}
    optimizer = AdamWOptimizer(params)
    gradients = [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(20)]
    for t, gradient in enumerate(gradients, start=1):
        optimizer.step(gradient, lr_scale=1 / t)
    for name, index in (("a", (0, 0)), ("a", (1, 2)), ("b", (3,))):
        x, m, v = float(params[name][index]), 0.0, 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[name][index])
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            step = 3e-4 / t * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
            x = x - step - 3e-4 / t * 0.01 * x
        assert optimizer.params[name][index] == pytest.approx(x, rel=1e-12)


def test_a_learning_rate_from_numpy_keeps_parameters_float32() -> None:
    """One out of np.logspace, say, is a float64, which NumPy would spread."""
    optimizer = AdamWOptimizer({"x": np.ones(2, np.float32)}, np.float64(0.1))
    optimizer.step({"x": np.ones(2, np.float32)})
    assert optimizer.params["x"].dtype == np.float32


def test_parameters_are_copied_on_their_way_in_and_out() -> None:
    """θ_init, those of the optimizer and θ_star do not change with each other."""
    θ_init = {"logits": np.zeros(5), "other": np.zeros(1)}
    optimizer = AdamWOptimizer(θ_init, 0.1)
    θ_init["other"] += 5
    θ_star, _ = train_grpo(optimizer, replace(BANDIT, M=1), slopes(1), lambda *_: None)
    train(optimizer, replace(BANDIT, M=1), slopes(1))  # goes on
    θ_all = (θ_init, θ_star, optimizer.params)
    assert [float(θ["other"][0]) for θ in θ_all] == pytest.approx([5, 0.1, 0.1 + 0.1], rel=0.01)


# %% Training


def test_groups_share_a_start_and_no_start_is_ever_held_out() -> None:
    """Held-out seeds are 0 .. num_val-1, others from there up, new ones also in a second call."""
    pay = Mock(side_effect=np.add)
    config = replace(BANDIT, environment=partial(Bandit, pay=pay), M=10)
    for seed in (1, 2):
        optimizer = five_arms()
        train(optimizer, replace(config, seed=seed))
        train(optimizer, replace(config, seed=seed))
    # Were starts drawn from 0 up, about four of so many would be held out here.
    train(optimizer, replace(config, M=1, G=2, B=2**16, num_val=2**17))
    seeds = [call.args[0].tolist() for call in pay.call_args_list]
    assert min(seeds[80]) >= 2**17
    assert seeds[1:80:2] == [list(range(8))] * 40
    groups = np.reshape(seeds[0:80:2], (80, 4))
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups)) == 80


def test_held_out_trajectories_are_played_after_the_gradient_steps() -> None:
    """The first step already makes arm 4 certain; the reward is the arm plus the seed."""
    report = Mock()
    config = replace(BANDIT, environment=partial(Bandit, pay=np.add), M=2)
    _, rewards_val = train_grpo(five_arms(learning_rate=100), config, slopes(1, 1), report)
    (i, first), (j, second) = (call.args for call in report.call_args_list)
    assert (i, j, first["M"]) == (0, 1, 2)
    assert len(set(first["batch"].actions)) > 1
    assert rewards_val.tolist() == [first["reward_val"], second["reward_val"]] == [7.5, 7.5]


@pytest.mark.parametrize("R", [1, 3])
def test_the_replay_buffer_holds_the_last_r_mini_batches(R: int) -> None:
    """Every gradient step draws one of them, and each of them is drawn in time."""
    objective = Mock(side_effect=lambda θ, *_: anp.sum(θ["logits"]))
    reports = train(five_arms(), replace(BANDIT, R=R, μ=8, M=10), objective)
    number = {id(metrics["batch"]): i for i, metrics in enumerate(reports)}
    ages = [k // 8 - number[id(call.args[1])] for k, call in enumerate(objective.call_args_list)]
    assert set(ages) == set(range(R))
    assert min(ages.count(age) for age in range(R)) > 10


def test_the_same_seed_gives_the_same_parameters() -> None:
    """Bit by bit, on the same machine, here on a board of 10 x 10; another seed gives others."""
    rules = BattleshipRules(10, (2, 3, 3, 4, 5))
    config = replace(BATTLESHIP, environment=partial(BattleshipEnv, rules=rules), G=4, B=2, R=2)
    optimizers = [AdamWOptimizer(neural_battleship_policy_init(rules), 0.02) for _ in range(3)]
    for optimizer, seed in zip(optimizers, (1, 1, 2), strict=True):
        train(optimizer, replace(config, seed=seed))
    first, again, other = (optimizer.params["W1"].tobytes() for optimizer in optimizers)
    assert first == again != other


def test_steps_climb_the_objective_that_is_passed() -> None:
    """Steps get -∇J, no longer than max_grad_norm, at a rate that falls linearly to 0."""
    optimizer = five_arms()
    with patch.object(optimizer, "step", wraps=optimizer.step) as step:
        reports = train(optimizer, replace(BANDIT, μ=2, max_grad_norm=20), slopes(*range(1, 9)))
    given = [(call.args[0]["logits"][4], *call.args[0]["other"]) for call in step.call_args_list]
    assert given == [(-3 * k, -4 * k) for k in (1, 2, 3, 4, 4, 4, 4, 4)]
    scales = [call.kwargs["lr_scale"] for call in step.call_args_list]
    assert scales == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    assert [metrics["grad_norm"] for metrics in reports] == [10, 20, 30, 40]  # before, and the last
    assert reports[0]["objective"] == pytest.approx([0, 2 * (3 * 0.1 + 4 * 0.1)])


def test_where_all_rewards_are_equal_nothing_is_learned() -> None:
    """A gradient of 0 is no error: only the weights decay, apart from it, by α λ of themselves."""
    optimizer = AdamWOptimizer({"logits": np.full(5, 3.0)}, learning_rate=0.1, λ=0.2)
    config = replace(BANDIT, environment=partial(Bandit, pay=lambda _, arm: 0 * arm), M=1, μ=5)
    (metrics,) = train(optimizer, config)
    assert (metrics["flat_groups"], metrics["grad_norm"], metrics["kl"]) == (1, 0, 0)
    assert optimizer.params["logits"] == pytest.approx(3 * (1 - 0.1 * 0.2) ** 5)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error(wrong: float) -> None:
    """It names the mini-batch and the norm, and no step is made."""
    optimizer = five_arms()
    with pytest.raises(FloatingPointError, match=f"mini-batch 3.*{wrong}"):
        train(optimizer, replace(BANDIT, μ=2), slopes(1, 1, 1, 1, 1, wrong))
    assert optimizer.params["other"] == pytest.approx(0.1 * (1 + 1 + 0.75 + 0.75 + 0.5), rel=0.01)


def test_an_interruption_keeps_what_was_learned() -> None:
    """Control-C in mini-batch 2 leaves the parameters of mini-batch 2, ready to go on from."""
    optimizer = five_arms()
    with pytest.raises(KeyboardInterrupt):
        train_grpo(optimizer, BANDIT, slopes(1, 1), Mock(side_effect=[None, KeyboardInterrupt]))
    assert optimizer.params["other"] == pytest.approx(0.1 * (1 + 0.75), rel=0.01)


def test_grpo_objective_is_looked_up_when_training_starts(monkeypatch: Any) -> None:
    """So it takes effect to edit it in its notebook cell and run that cell alone."""
    monkeypatch.setattr("microgrpo.grpo_objective", slopes(2))
    (metrics,) = train(five_arms(), replace(BANDIT, M=1))
    assert metrics["grad_norm"] == 10


def test_metrics_are_those_of_the_mini_batch() -> None:
    """Each worked out from the batch in plain loops; boards of 2 x 2 make many groups flat."""
    rules = BattleshipRules(2, (2,))
    config = replace(BATTLESHIP, environment=partial(BattleshipEnv, rules=rules), G=2, B=8, β=0.1)
    reports = train(AdamWOptimizer(neural_battleship_policy_init(rules), 0.1), config)
    for metrics in reports:
        batch = metrics["batch"]
        ratios = [float(ref / old) for ref, old in zip(batch.π_ref, batch.π_old, strict=True)]
        k3 = [ratio - np.log(ratio) - 1 for ratio in ratios]
        assert metrics["reward"] == pytest.approx(fmean(batch.rewards))
        assert metrics["kl"] == pytest.approx(fmean(k3), rel=1e-4)
        assert metrics["entropy"] == pytest.approx(-fmean(np.log(batch.π_old)), rel=1e-4)
        assert metrics["length"] == len(batch.actions) / 16
        assert metrics["flat_groups"] == np.mean(batch.rewards[::2] == batch.rewards[1::2])
        assert {type(metrics[name]) for name in {*metrics} - {"batch", "objective", "M"}} == {float}
        # With ρ = 1 the advantages of a group cancel out, and the divergence is left.
        means = [fmean(k3[s] for s in np.flatnonzero(batch.trajectory == i)) for i in range(16)]
        assert metrics["objective"][0] == pytest.approx(-0.1 * fmean(means), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("M", "end"), [(1, "\n"), (3, "\n"), (205, "\n"), (2000, "\r")])
def test_progress_is_calm(M: int, end: str, capsys: Any, monkeypatch: Any) -> None:
    """ASCII: the first, each tenth, the last; in a terminal all in one line of 80 columns."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: end == "\r")
    for i in range(M):
        print_progress(i, dict(reward=0.5, reward_val=0.25, kl=0.125, entropy=2.0, M=M))
    text = capsys.readouterr().out
    assert text[-1] == "\n"
    lines = text[:-1].split(end)
    calm = {1: [1], 3: [1, 2, 3], 205: [1, *range(20, 201, 20), 205], 2000: list(range(1, 2001))}
    assert [int(re.findall(r"\d+", line)[0]) for line in lines] == calm[M]
    for line in lines:
        assert re.fullmatch("[ -~]{1,80}", line)
        assert all(value in line for value in ("0.500", "0.250", "0.125", "2.000"))


def test_the_call_that_started_it_all() -> None:
    """It runs as it stands (with M=3), leaves θ_init as it was, and float32 stays float32."""
    grpo_config = GRPOConfig(
        environment=BattleshipEnv,
        policy=neural_battleship_policy,
        reference_policy=reference_battleship_policy,
        M=3,
    )
    θ_init = neural_battleship_policy_init()
    θ_star, rewards_val = train_grpo(AdamWOptimizer(θ_init, learning_rate=3e-4), grpo_config)
    assert rewards_val.shape == (3,)
    for name, value in neural_battleship_policy_init().items():
        np.testing.assert_array_equal(θ_init[name], value)
        assert (θ_star[name] != value).any()
        assert θ_star[name].dtype == np.float32


# Six seeds of the first reached 0.341 to 0.387, and of the second 0.315 to 0.336; random is 0.153.
@pytest.mark.parametrize(("M", "μ", "R"), [(60, 1, 1), (40, 2, 2)])
def test_battleship_is_learned(M: int, μ: int, R: int) -> None:
    """A few seconds show it, on-policy or from a buffer."""
    optimizer = AdamWOptimizer(neural_battleship_policy_init(), 3e-2)
    config = replace(BATTLESHIP, M=M, μ=μ, R=R, num_val=1)
    train(optimizer, config)
    assert rollout(optimizer.params, config, range(10**6, 10**6 + 500)).rewards.mean() > 0.25


def test_a_bandit_is_learned() -> None:
    """Any policy and environment will do: the best of the five arms, which pays 4."""
    optimizer = five_arms()
    train(optimizer, replace(BANDIT, M=60))
    assert softmax(optimizer.params, np.zeros(1))[4] > 0.8  # eight seeds: 0.907 to 0.942
