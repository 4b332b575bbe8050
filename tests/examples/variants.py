"""Seven variants of GRPO, each a function (θ, batch, config) -> J for `train_grpo(objective=...)`.

Most papers after DeepSeekMath change a line or two of the objective. Each function below is such a
change, with its paper and the settings that come closest in TRL 1.16, a library for language models
(whose `epsilon` and `beta` are our ε and β). Only the last two have a KL divergence.

`uv run tests/examples/variants.py` trains on a few batches of Battleship with each, in about
15 seconds, and prints the scores. These say that each one learns, not which is best:
nothing is tuned, and there is only one seed.

To use one in a script of your own that runs in this repository's folder, write
`sys.path.append("tests/examples")` above `from variants import dapo_objective`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, as in microgrpo.py

from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval

import microgrpo as m

# %% What several variants need


def probabilities(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """Return the probability of each action taken, [S]."""
    return config.policy(θ, batch.observations)[np.arange(len(batch.actions)), batch.actions]


def clipped_surrogate(ρ: Any, A: m.Array, low: float, high: float) -> Any:
    """Return min(ρ A, clip(ρ, low, high) A)."""
    return anp.minimum(ρ * A, anp.clip(ρ, low, high) * A)


def centered_rewards(batch: m.Batch, config: m.GRPOConfig) -> m.Array:
    """Return reward - mean of its group, [n]: the advantages, not divided by the deviation."""
    groups = batch.rewards.reshape(-1, config.G)  # [B, G]
    return (groups - groups.mean(axis=1, keepdims=True)).reshape(-1)


def sum_per_trajectory(values: Any, trajectory: m.Array) -> Any:
    """Add up the values [S] of the steps of each trajectory, [n]."""
    return np.bincount(trajectory, weights=values)


# autograd cannot differentiate np.bincount, so tell it how: each value gets its sum's gradient.
sum_per_trajectory = primitive(sum_per_trajectory)
defvjp(sum_per_trajectory, lambda _sums, _values, trajectory: lambda g: g[trajectory])


# %% The variants


def dr_grpo_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """Dr. GRPO (arXiv 2503.20783): divide neither by the deviation nor by the trajectory's length.

    The deviation gives groups whose rewards hardly differ as much weight as others, and the length
    goes easy on long failures. A constant takes its place: the most steps there can be.

    In TRL: loss_type="dr_grpo", scale_rewards="none".
    """
    ρ = probabilities(θ, batch, config) / batch.π_old  # [S]
    A = centered_rewards(batch, config)[batch.trajectory]  # [S]
    per_step = clipped_surrogate(ρ, A, 1 - config.ε, 1 + config.ε)
    return anp.sum(per_step) / config.max_steps / len(batch.rewards)


def dapo_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """DAPO (arXiv 2503.14476): all steps of a group weigh the same, and ρ may rise further.

    Clipping at 1.28 instead of 1.2 leaves rare actions more room to become likelier. Groups whose
    rewards are all equal do not count. (The paper draws new groups in their place, and penalises
    overlong answers, which is up to the environment.)

    In TRL: loss_type="dapo", epsilon_high=0.28. It divides by the steps of the whole batch instead,
    and counts all groups.
    """
    ρ = probabilities(θ, batch, config) / batch.π_old  # [S]
    A = m.grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]
    group = batch.trajectory // config.G  # [S]
    steps_of_group = np.bincount(group)[group]  # [S]
    # Rounding can make equal rewards differ a little, so look for advantages that stand out from 0.
    groups_that_count = np.unique(group[abs(A) > 1e-3])
    per_step = clipped_surrogate(ρ, A, 1 - 0.2, 1 + 0.28) / steps_of_group
    return anp.sum(per_step) / max(1, len(groups_that_count))


def gspo_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """GSPO (arXiv 2507.18071): one ratio per trajectory, because the reward is for all of it too.

    The ratio s is the geometric mean of the ρ of its steps. (The paper clips it at 1 - 3e-4 and
    1 + 4e-4, for texts of thousands of tokens. Here ε says where.)

    In TRL: importance_sampling_level="sequence" and loss_type="grpo". With its default loss_type, a
    trajectory would weigh in proportion to its steps.
    """
    log_ρ = anp.log(probabilities(θ, batch, config) / batch.π_old)  # [S]
    length = np.bincount(batch.trajectory)  # [n]
    s = anp.exp(sum_per_trajectory(log_ρ, batch.trajectory) / length)  # [n]
    A = m.grpo_advantages(batch.rewards, config)  # [n]
    return anp.mean(clipped_surrogate(s, A, 1 - config.ε, 1 + config.ε))


def cispo_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """CISPO (MiniMax-M1, arXiv 2506.13585): REINFORCE, with ρ as a weight that has an upper limit.

    The weight is held constant (detached), so that each step keeps its gradient, whereas the clip
    of GRPO would make some of them 0. All steps of a group weigh the same.

    In TRL: loss_type="cispo", where epsilon_high is the limit itself, our 1 + ε. It divides by the
    steps of the whole batch.
    """
    π = probabilities(θ, batch, config)  # [S]
    weight = np.minimum(getval(π) / batch.π_old, 1 + config.ε)  # [S]
    A = m.grpo_advantages(batch.rewards, config)[batch.trajectory]  # [S]
    group = batch.trajectory // config.G  # [S]
    steps_of_group = np.bincount(group)[group]  # [S]
    B = len(batch.rewards) / config.G
    return anp.sum(weight * A * anp.log(π) / steps_of_group) / B


def rloo_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """RLOO (arXiv 2402.14740): REINFORCE, where the baseline is the mean of the *other* rewards.

    Nothing is clipped, so it is for one gradient step per batch: pass μ=1. (The paper subtracts the
    divergence from the reward.)

    In TRL: RLOOTrainer, beta=0. It clips the ratio of whole trajectories, which changes nothing at
    the first gradient step.
    """
    log_π = anp.log(probabilities(θ, batch, config))  # [S]
    log_π_of_trajectory = sum_per_trajectory(log_π, batch.trajectory)  # [n]
    # With the mean m of all G rewards r, that of the others is (G m - r) / (G - 1), and so
    # r - mean of the others = G / (G - 1) (r - m).
    A = config.G / (config.G - 1) * centered_rewards(batch, config)  # [n]
    return anp.mean(A * log_π_of_trajectory)


def k2_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """GRPO with another estimate of the divergence, k2 = (log(π / π_ref))^2 / 2 (2510.01555).

    For actions drawn from π, its gradient is on average that of KL(π ‖ π_ref), unlike that of k3 in
    `kl_divergence`. The config needs a reference policy.

    In TRL: loss_type="grpo" and use_bias_correction_kl=True (the default since 1.10), which
    multiplies k3 by ρ and has the same gradient where ρ = 1. (For k3 as in `grpo_objective`, set it
    to False.)
    """
    log_ratio = anp.log(probabilities(θ, batch, config) / batch.π_ref)  # [S]
    k2 = log_ratio**2 / 2
    length = np.bincount(batch.trajectory)  # [n]
    mean_k2 = anp.sum(k2 / length[batch.trajectory]) / len(batch.rewards)
    return m.grpo_objective(θ, batch, replace(config, β=0)) - config.β * mean_k2


def process_supervision_objective(θ: m.Params, batch: m.Batch, config: m.GRPOConfig) -> Any:
    """GRPO where each step has a reward of its own: DeepSeekMath (2402.03300), section 4.1.3.

    Rewards of steps are normalised over all steps of the group. The advantage of a step is the sum
    of these from that step to the end, so that it is judged by what came after, and not before.
    """
    group = batch.trajectory // config.G  # [S]
    steps_of_group = np.bincount(group)  # [B]
    mean = np.bincount(group, weights=batch.step_rewards) / steps_of_group  # [B]
    centered = batch.step_rewards - mean[group]  # [S]
    std = np.sqrt(np.bincount(group, weights=centered**2) / steps_of_group)  # [B]
    normalized = centered / (std[group] + 1e-4)  # [S]

    A = np.zeros(len(normalized))  # [S]
    to_come = np.zeros(len(batch.rewards))  # [n]
    for step in reversed(range(len(A))):
        to_come[batch.trajectory[step]] += normalized[step]
        A[step] = to_come[batch.trajectory[step]]

    π = probabilities(θ, batch, config)  # [S]
    per_step = clipped_surrogate(π / batch.π_old, A, 1 - config.ε, 1 + config.ε)
    if config.reference_policy and config.β > 0:
        per_step = per_step - config.β * m.kl_divergence(π, batch.π_ref)
    length = np.bincount(batch.trajectory)  # [n]
    return anp.sum(per_step / length[batch.trajectory]) / len(batch.rewards)


# %% Train with each

if __name__ == "__main__":
    config = m.GRPOConfig(
        environment=m.BattleshipEnv,
        policy=m.neural_battleship_policy,
        reference_policy=m.reference_battleship_policy,
        max_steps=25,  # as many shots as there are tiles: Dr. GRPO divides by this
        M=30,
    )
    objectives = {
        "GRPO": m.grpo_objective,
        "Dr. GRPO": dr_grpo_objective,
        "DAPO": dapo_objective,
        "GSPO": gspo_objective,
        "CISPO": cispo_objective,
        "RLOO": rloo_objective,
        "k2": k2_objective,
        "process supervision": process_supervision_objective,
    }
    θ_init = m.neural_battleship_policy_init()
    test_seeds = range(2**31, 2**31 + 1000)  # training uses only smaller seeds
    untrained = m.rollout(θ_init, config, test_seeds).rewards.mean()
    print(f"{'untrained':20} score {untrained:.3f}")
    for name, objective in objectives.items():
        this_config = replace(config, μ=1) if name == "RLOO" else config
        optimizer = m.AdamWOptimizer(θ_init)
        m.train_grpo(optimizer, this_config, objective, report=lambda *_: None)
        score = m.rollout(optimizer.params, config, test_seeds).rewards.mean()
        print(f"{name:20} score {score:.3f}", flush=True)
