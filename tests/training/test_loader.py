from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import ArrayFile, Split, Task
from trimtab.data.batches import feeds, labels
from trimtab.training.loader import Loader


def loader(items: int, batch: int, seed: int = 0, share: tuple[int, int] = (0, 1)) -> Loader:
    """A loader of a split that has so many items, but nothing in them."""
    rows = ArrayFile(name="rows", path=Path("rows.npy"), dtype="int64", shape=(items,))
    return Loader(Task(), Split(name="train", inputs=(), rows=rows), batch, seed, share)


def all_rows(made: Loader, epoch: int = 0) -> list[int]:
    return [row for number in range(len(made)) for row in made.rows(epoch, number).tolist()]


@given(items=st.integers(2, 150), batch=st.integers(2, 40), epoch=st.integers(0, 5))
def test_every_item_comes_once_an_epoch_but_for_a_single_one_left_over(items: int, batch: int, epoch: int) -> None:
    found = all_rows(loader(items, batch), epoch)
    assert len(set(found)) == len(found) == items - (items % batch == 1)
    assert set(found) <= set(range(items))


@pytest.mark.parametrize(("items", "expected"), [(64, 2), (65, 2), (66, 3), (31, 1), (1, 0), (0, 0)])
def test_a_last_batch_of_a_single_item_is_left_out(items: int, expected: int) -> None:
    assert len(loader(items, 32)) == expected


def test_the_order_is_another_in_every_epoch_and_with_every_seed_but_the_same_again() -> None:
    orders = [all_rows(loader(100, 10, seed), epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(map(tuple, orders))) == 6
    assert orders == [all_rows(loader(100, 10, seed), epoch) for seed in (0, 1) for epoch in (0, 1, 2)]


@given(items=st.integers(2, 150), batch=st.integers(2, 40), parts=st.integers(1, 5))
def test_shares_are_disjoint_and_cover_the_batch(items: int, batch: int, parts: int) -> None:
    whole, shares = loader(items, batch), [loader(items, batch, share=(part, parts)) for part in range(parts)]
    assert len({len(share) for share in shares}) == 1, "processes that wait for each other take as many steps"
    for number in range(len(shares[0])):
        together = [row for share in shares for row in share.rows(3, number).tolist()]
        assert sorted(together) == sorted(whole.rows(3, number).tolist())


@given(items=st.integers(2, 150), parts=st.integers(2, 5))
def test_no_share_of_a_batch_is_empty(items: int, parts: int) -> None:
    shares = [loader(items, 8, share=(part, parts)) for part in range(parts)]
    assert all(len(share.rows(0, number)) for share in shares for number in range(len(share)))


def test_a_part_of_a_batch_is_a_sample_of_all_items() -> None:
    firsts = np.concatenate([loader(1000, 100, seed).rows(0, 0)[:10] for seed in range(50)])
    assert 400 < firsts.mean() < 600, "rows in their order would give the first classes to the first part"


def test_a_batch_is_what_the_split_holds_at_its_rows(few: Task) -> None:
    split = few.split("train")
    made = Loader(few, split, 32, seed=0)
    batches = list(made.epoch(0))
    assert [len(batch.rows) for batch in batches] == [32, 32, 32, 9]
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.rows, made.rows(0, number))
        np.testing.assert_array_equal(batch.labels, labels(split)[batch.rows])
        np.testing.assert_array_equal(batch.feed["input"], feeds(few, split, batch.rows)["input"])


def test_an_epoch_begun_in_the_middle_is_the_rest_of_it(few: Task) -> None:
    made = Loader(few, few.split("train"), 32, seed=0)
    whole = list(made.epoch(2))
    for start in range(5):
        rest = list(made.epoch(2, start))
        assert [batch.rows.tolist() for batch in rest] == [batch.rows.tolist() for batch in whole[start:]]
        for one, other in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(one.feed["input"], other.feed["input"])


def test_the_time_that_was_waited_adds_up(few: Task) -> None:
    made = Loader(few, few.split("train"), 32, seed=0)
    assert made.waited_s == 0.0
    seen = []
    for epoch in range(2):
        seen += [made.waited_s for _ in made.epoch(epoch)]
    assert seen == sorted(seen)
    assert seen[-1] > 0


def test_without_labels_there_are_none(few: Task) -> None:
    split = few.split("train")
    bare = Split(name="train", inputs=split.inputs, rows=split.rows)
    assert next(iter(Loader(few, bare, 32, seed=0).epoch(0))).labels is None
