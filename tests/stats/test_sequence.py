import numpy as np

from trimtab.stats.sequence import fixed_sequence, safest_first


def test_the_sequence_ends_at_the_first_failure():
    assert fixed_sequence([True, True, False, True], bool) == [True, True, False]
    assert fixed_sequence([0.01, 0.2, 0.001], lambda p: p <= 0.05) == [0.01, 0.2]
    assert fixed_sequence([], bool) == []


def test_tests_behind_a_failure_are_never_made():
    made = []

    def proofs():
        for name, proven in (("a", True), ("b", False), ("c", True)):
            made.append(name)
            yield proven

    assert fixed_sequence(proofs(), bool) == [True, False]
    assert made == ["a", "b"]


def test_the_safest_comes_first_and_ties_keep_their_order():
    assert safest_first([1.0, 3.0, 1.0, 2.0]).tolist() == [1, 3, 0, 2]


def test_any_false_proof_happens_with_at_most_the_risk_whatever_is_true_before_it():
    uniform, rng = np.random.default_rng(0).random((20_000, 6)), np.random.default_rng(1)
    false = rng.random(6) < 0.5  # which finalists are worse by the limit; the others pass nearly always
    p = np.where(false, uniform, uniform * 0.01)
    wrong = [bool(false[: sum(fixed_sequence(row <= 0.05, bool))].any()) for row in p]
    assert np.mean(wrong) <= 0.055
