"""The page about memory, from numbers whose verdict is known."""

from __future__ import annotations

import pytest

W = 100_000_000


@pytest.fixture
def rows():
    """Rises of which those with mapped weights grow by 20 MB a replica, the others by 130."""
    from memory import WAYS

    def rise(way, count):
        return (130 if way.endswith("own") else 20) * 1_000_000 * count + (0 if way.endswith("own") else W)

    return [{"way": way, "replicas": count, "rise": rise(way, count)} for way in WAYS for count in (1, 2, 4)]


def step(name, gradients=0, activations=80, peak=120, same=True):
    forward = {"activations": activations, "gradients": gradients, "total": 30 + gradients + activations}
    return {"batch": 4, "name": name, "phases": {"forward": forward}, "peak": peak, "resident": [9, 7, 8], "same": same}


def test_a_further_replica_is_the_slope_over_replicas(rows):
    from memory import further

    assert further(rows, "ort-own") == 130_000_000
    assert further(rows, "ort-mapped") == 20_000_000
    assert further([row for row in rows if row["replicas"] == 1], "ort-own") == 0


def test_sharing_is_met_where_the_weights_are_saved(rows):
    from memory import shared_lines

    page = "\n".join(shared_lines(rows, W))
    assert page.count("**met**") == 2
    assert (
        "PyTorch: a further replica takes 110.0 MB less when weights are mapped (asked: 80% of the weights' 100.0"
        in page
    )
    assert "| PyTorch, weights read | 130.0 | 260.0 | 520.0 | 130.0 |" in page
    assert "\n".join(shared_lines(rows, 2 * W)).count("**NOT met**") == 2


def test_a_step_is_met_where_checkpointing_halves_and_gradients_are_freed_to_the_byte():
    from memory import step_lines

    steps = [step("as asked"), step("activation checkpointing", activations=40),
             step("gradients zeroed, not freed", gradients=11)]  # fmt: skip
    assert "\n".join(step_lines(steps)).count("**met**") == 3
    steps[1] = step("activation checkpointing", activations=41)
    steps[2] = step("gradients zeroed, not freed", gradients=11, activations=81, same=False)
    assert "\n".join(step_lines(steps)).count("**NOT met**") == 3


def test_a_replica_reads_its_own_proportional_size():
    from memory import Replica

    size = Replica.pss(Replica.__new__(Replica))
    assert 1 << 20 < size < 1 << 34
