from __future__ import annotations

import itertools

import numpy as np
import pytest

from trimtab.core.values import Settings, Variant
from trimtab.meters import interleave as subject
from trimtab.meters.interleave import block_calls, interleave
from trimtab.testing.fakes import FakeProcessSession

INPUTS = {"x": np.zeros((1, 3), np.float32)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on by one second whenever somebody looks."""
    ticks = itertools.count()
    monkeypatch.setattr(subject.time, "monotonic", lambda: float(next(ticks)))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("latency_s", "expected"),
    [(1e-6, (200, 2)), (1e-3, (15, 2)), (5e-3, (3, 1)), (0.03, (1, 1)), (0.5, (1, 0)), (0.0, (200, 2))],
)
def test_a_block_lasts_about_15_ms_and_its_first_calls_are_thrown_away(latency_s, expected):
    assert block_calls(latency_s) == expected


def test_every_round_has_one_block_of_every_session_in_an_order_that_changes(fakes, clock):
    order: list[int] = []
    sessions = [fakes.session(fakes.variant(), call_ns=lambda n, b, k=k: order.append(k) or 10**6) for k in range(3)]
    found = interleave(sessions, [INPUTS] * 3, [0.02] * 3, seconds=8, rng=rng())
    calls = np.array(order).reshape(-1, 3, 2)  # one counted, one thrown away
    assert (calls[..., 0] == calls[..., 1]).all(), "a block is not torn apart"
    rounds = calls[..., 0]
    assert found.wall_s.shape == found.cpu_s.shape == (3, len(rounds))
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len({tuple(one) for one in rounds.tolist()}) > 1


def test_all_but_the_one_that_is_timed_stand_still(clock):
    standing: list[list[bool]] = []

    def look(number: int, items: int) -> int:
        standing.append([session.paused for session in sessions])
        return 10**6

    variant = Variant(model=None, settings=Settings(runtime="fake"))
    sessions = [FakeProcessSession(variant, dict, look) for _ in range(3)]
    interleave(sessions, [INPUTS] * 3, [0.02] * 3, seconds=8, rng=rng())
    assert {sum(paused) for paused in standing} == {2}
    assert all(session.paused for session in sessions), "nor does the last one run on"


def test_a_block_is_the_median_of_its_calls_without_the_first_ones(fakes, clock):
    times = [99, 98, 1, 2, 3, 4, 90]
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: times[number % 7] * 1_000_000, cores=1.5)
    found = interleave([session], [INPUTS], [0.0015], seconds=0, rng=rng())
    counted, thrown = block_calls(0.0015)
    stream = np.resize(times, 3 * (counted + thrown)).reshape(3, -1)[:, thrown:]
    assert found.wall_s[0] == pytest.approx(np.median(stream, axis=1) / 1e3)
    assert found.cpu_s[0] == pytest.approx(1.5 * np.median(stream, axis=1) / 1e3)


def test_makes_three_rounds_whatever_the_budget_and_no_more_when_it_is_gone(fakes, clock):
    session = fakes.session(fakes.variant())
    assert interleave([session], [INPUTS], [0.02], seconds=0, rng=rng()).wall_s.shape == (1, 3)
    assert interleave([session], [INPUTS], [0.02], seconds=40, rng=rng()).wall_s.shape == (1, 3 + 39)


def test_the_stop_is_asked_from_16_rounds_on_and_every_8(fakes, clock):
    asked: list[tuple[int, ...]] = []

    def stop(wall: np.ndarray) -> bool:
        asked.append(wall.shape)
        return wall.shape[1] >= 32

    session = fakes.session(fakes.variant())
    found = interleave([session] * 2, [INPUTS] * 2, [0.02] * 2, seconds=1e9, rng=rng(), stop=stop)
    assert asked == [(2, 16), (2, 24), (2, 32)]
    assert found.wall_s.shape == (2, 32)


def test_equal_seeds_give_equal_orders(fakes, clock):
    def orders() -> list[int]:
        order: list[int] = []
        sessions = [
            fakes.session(fakes.variant(), call_ns=lambda n, b, k=k: order.append(k) or 10**6) for k in range(4)
        ]
        interleave(sessions, [INPUTS] * 4, [0.5] * 4, seconds=0, rng=np.random.default_rng(7))
        return order

    assert orders() == orders()


def test_a_stop_is_not_asked_before_there_is_enough_to_judge(fakes, clock):
    session = fakes.session(fakes.variant())
    found = interleave([session], [INPUTS], [0.02], seconds=10, rng=rng(), stop=lambda wall: pytest.fail("too early"))
    assert found.wall_s.shape == (1, 3 + 9)


@pytest.mark.parametrize("latency_s", np.geomspace(1e-7, 10, 15))
def test_a_block_is_never_empty_and_lasts_no_longer_than_it_must(latency_s):
    counted, thrown = block_calls(float(latency_s))
    assert 1 <= counted <= 200
    assert 0 <= thrown <= 2
    assert counted == 1 or counted * latency_s <= 1.5 * subject.BLOCK_S
