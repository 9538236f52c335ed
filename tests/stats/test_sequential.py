import numpy as np
import pytest

from trimtab.stats.sequential import Evidence, watch


def gains(difference, psi, items, trials, seed=0):
    chances = [(psi + difference) / 2, (psi - difference) / 2, 1 - psi]
    return np.random.default_rng(seed).choice([1, -1, 0], size=(trials, items), p=chances)


def deaths(rows, delta=0.01, alpha=0.05):
    return np.array([watch(Evidence(delta=delta, alpha=alpha), row).died_at or np.inf for row in rows])


@pytest.mark.parametrize(("difference", "psi"), [(-0.01, 0.01), (-0.01, 0.05), (-0.01, 0.3), (0.0, 0.02)])
def test_an_innocent_candidate_is_ever_killed_with_at_most_the_risk(difference, psi):
    died = np.isfinite(deaths(gains(difference, psi, items=3000, trials=600))).mean()
    assert died <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_evidence_against_a_candidate_at_the_limit_has_mean_one():
    rows = gains(-0.02, 0.2, items=40, trials=15_000)
    values = np.exp([watch(Evidence(delta=0.02), row).log_value for row in rows])
    assert values.mean() == pytest.approx(1.0, abs=4 * values.std() / np.sqrt(len(rows)))


def test_a_drift_that_keeps_the_mean_of_every_item_at_the_limit_does_not_fool_it():
    # D may depend on the past: here discordance rises after every loss, the mean given the past stays at −δ.
    rng, killed = np.random.default_rng(3), 0
    for _ in range(300):
        row = np.zeros(1000)
        for i, u in enumerate(rng.random(1000)):
            psi = 0.3 if i and row[i - 1] < 0 else 0.03
            row[i] = -1 if u < (psi + 0.01) / 2 else 1 if u < psi else 0
        killed += watch(Evidence(delta=0.01), row).dead
    assert killed / 300 <= 0.08


def test_a_model_4_5_points_worse_dies_after_about_256_items():
    assert 200 <= np.median(deaths(gains(-0.045, 0.05, items=3000, trials=300))) <= 310


def test_a_disaster_dies_within_a_batch_or_two():
    assert watch(Evidence(delta=0.01), -np.ones(32)).died_at <= 16


def test_chunks_of_any_size_give_the_same_evidence():
    row = gains(-0.03, 0.1, items=500, trials=1)[0]
    whole, pieces = watch(Evidence(delta=0.01), row), Evidence(delta=0.01)
    for part in np.array_split(row, [1, 2, 50, 51, 300]):
        pieces = watch(pieces, part)
    assert pieces.died_at == whole.died_at
    assert (pieces.items, pieces.total) == (whole.items, pytest.approx(whole.total))
    assert pieces.log_value == pytest.approx(whole.log_value)


def test_bets_never_risk_more_than_half():
    row = gains(-0.2, 0.9, items=400, trials=1)[0]
    logs = np.array([watch(Evidence(delta=0.01), row[: i + 1]).log_value for i in range(400)])
    assert np.min(np.diff(logs)) >= np.log(0.5) - 1e-12


def test_a_bet_does_not_know_the_item_it_is_made_on():
    row = gains(-0.1, 0.4, items=60, trials=1)[0].astype(float)
    before = watch(Evidence(delta=0.05), row).log_value
    after = [watch(Evidence(delta=0.05), np.r_[row, last]).log_value - before for last in (-1.0, 1.0)]
    bets = [np.expm1(after[0]) / (1 - 0.05), np.expm1(after[1]) / (-1 - 0.05)]
    assert bets[0] == pytest.approx(bets[1])
    assert 0 < bets[0] <= 0.5 / 1.05


def test_the_dead_stay_dead():
    dead = watch(Evidence(delta=0.01), -np.ones(30))
    saved = watch(dead, np.ones(500))
    assert saved.dead
    assert saved.died_at == dead.died_at


def clearings(rows, delta=0.01, alpha=0.05):
    return np.array([watch(Evidence(delta=-delta, alpha=alpha), -row).died_at or np.inf for row in rows])


@pytest.mark.parametrize("psi", [0.01, 0.05, 0.3])
def test_a_candidate_worse_by_delta_is_ever_cleared_with_at_most_the_risk(psi):
    cleared = np.isfinite(clearings(gains(-0.01, psi, items=3000, trials=600))).mean()
    assert cleared <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_the_same_answers_clear_a_candidate_at_the_first_item_that_can():
    first = int(np.ceil(np.log(20) / np.log1p(0.5 * 0.01 / (1 - 0.01))))
    assert clearings([np.zeros(3000)])[0] == pytest.approx(first, abs=12)


def test_one_that_is_better_is_cleared_sooner_than_one_that_is_the_same():
    assert np.median(clearings(gains(0.02, 0.05, items=3000, trials=200))) < clearings([np.zeros(3000)])[0]


def test_a_gain_outside_minus_one_to_one_is_refused():
    with pytest.raises(ValueError, match="between −1"):
        watch(Evidence(delta=0.01), [0.0, 2.0])
