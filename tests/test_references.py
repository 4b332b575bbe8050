"""The players that trained policies are compared with: their scores, computed a second way."""

import numpy as np
import pytest
from players import (
    SHIP_TILES,
    WATER_TILES,
    all_placements,
    greedy_posterior_scores,
    hunt_and_target_scores,
    posterior,
    random_shots_score,
)


def test_count_of_fleets() -> None:
    """The default rules allow 9,024 placements, which make 8,092 distinct boards."""
    assert len(all_placements()) == 9024
    assert len(np.unique(all_placements(), axis=0)) == 8092
    assert (all_placements().sum(axis=(1, 2)) == SHIP_TILES).all()
    # Two ships on four tiles: both rows or both columns, either ship first.
    assert all_placements(2, (2, 2)).tolist() == [[[True, True], [True, True]]] * 4


def test_greedy_posterior() -> None:
    """It scores 0.6146 on average, the same as with a new posterior before each shot."""
    scores = greedy_posterior_scores()
    assert scores.mean() == pytest.approx(0.6146, abs=0.00005)
    for index in range(0, len(scores), 500):
        fleet = all_placements()[index]
        observation = np.zeros((5, 5))
        while (fleet & (observation == 0)).any():
            p = posterior(observation)
            assert p[observation != 0].tolist() == fleet[observation != 0].tolist()
            assert p.sum() == pytest.approx(SHIP_TILES)
            tile = np.where(observation == 0, p, -1).argmax()
            observation.flat[tile] = 1 if fleet.flat[tile] else -1
        assert scores[index] == 1 - (observation == -1).sum() / (WATER_TILES + 1)


def test_hunt_and_target() -> None:
    """It scores 0.397. Without a target, it is random play, whose score is known exactly."""
    error = 4 * 0.0006  # four standard errors of a mean over 4 games on each fleet
    assert hunt_and_target_scores(games=4).mean() == pytest.approx(0.3974, abs=error)
    random = hunt_and_target_scores(target=False, games=4).mean()
    assert random == pytest.approx(random_shots_score(), abs=error)
    assert random_shots_score() == pytest.approx(0.1529, abs=0.00005)
