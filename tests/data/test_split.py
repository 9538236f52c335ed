import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from trimtab.core.errors import BadInput
from trimtab.data.split import CALIBRATE_ITEMS, Items, evenly, plan, undivided

seeds = st.integers(0, 2**32 - 1)
strata = st.lists(st.integers(0, 4), min_size=8, max_size=400).map(np.array)


@given(strata, seeds)
@settings(max_examples=60, deadline=None)
def test_every_item_is_in_exactly_one_split(labels: np.ndarray, seed: int) -> None:
    splits = plan(Items(count=len(labels), strata=labels), seed)
    assert list(splits) == ["calibrate", "select", "certify"]
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
    assert all((np.diff(rows) > 0).all() for name, rows in splits.items() if name != "select")


@given(strata, seeds)
@settings(max_examples=60, deadline=None)
def test_sizes_keep_their_bounds(labels: np.ndarray, seed: int) -> None:
    splits = plan(Items(count=len(labels), strata=labels), seed)
    assert 1 <= len(splits["calibrate"]) <= CALIBRATE_ITEMS
    assert 1 <= len(splits["select"]) <= len(labels) / 4
    assert len(splits["certify"]) >= len(labels) / 2


@given(strata, seeds)
@settings(max_examples=60, deadline=None)
def test_each_class_has_its_share_of_every_split_to_within_two_items(labels: np.ndarray, seed: int) -> None:
    splits = plan(Items(count=len(labels), strata=labels), seed)
    for stratum, count in zip(*np.unique(labels, return_counts=True), strict=True):
        for rows in splits.values():
            assert abs((labels[rows] == stratum).sum() - count * len(rows) / len(labels)) < 2


@given(strata, seeds)
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_plan(labels: np.ndarray, seed: int) -> None:
    first, second = (plan(Items(count=len(labels), strata=labels), seed) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_another_seed_gives_another_plan() -> None:
    labels = np.arange(200) % 5
    first, second = (plan(Items(count=200, strata=labels), seed) for seed in (0, 1))
    assert set(first["certify"].tolist()) != set(second["certify"].tolist())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, {"certify": [0, 1, 2]}),
        (["certify"] * 3, {"certify": [0, 1, 2]}),
        (["train", "", "test"], {"train": [0], "certify": [1, 2]}),
        (["select", "calibrate", "select"], {"calibrate": [1], "select": [0, 2]}),
    ],
)
def test_items_that_are_only_looked_for_stay_where_they_are_named(names, expected) -> None:
    found = undivided(Items(count=3, names=None if names is None else np.array(names)))
    assert {name: rows.tolist() for name, rows in found.items()} == expected
    assert list(found) == list(expected)


def test_stratification_is_as_good_as_scikit_learns() -> None:
    labels = np.random.default_rng(0).choice(6, 2000, p=[0.5, 0.3, 0.1, 0.05, 0.04, 0.01])
    certify = plan(Items(count=2000, strata=labels), 3)["certify"]
    theirs, _ = train_test_split(np.arange(2000), train_size=len(certify), stratify=labels, random_state=0)
    ours = np.bincount(labels[certify], minlength=6)
    assert np.abs(ours - np.bincount(labels[theirs], minlength=6)).max() <= 2


@given(st.lists(st.integers(0, 30), min_size=40, max_size=300).map(np.array), seeds)
@settings(max_examples=60, deadline=None)
def test_groups_never_straddle_and_nothing_is_lost(groups: np.ndarray, seed: int) -> None:
    if len(np.unique(groups)) < 3:
        groups[:3] = [0, 1, 2]
    labels = groups % 3
    splits = plan(Items(count=len(groups), strata=labels, groups=groups), seed)
    homes = [set(groups[rows].tolist()) for rows in splits.values()]
    assert len(set.union(*homes)) == sum(map(len, homes))
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(groups)))
    assert all(len(rows) for rows in splits.values())


def test_groups_of_even_size_keep_the_bounds_and_the_shares() -> None:
    groups = np.repeat(np.arange(400), 5)
    labels = groups % 4
    splits = plan(Items(count=2000, strata=labels, groups=groups), 0)
    assert len(splits["calibrate"]) == 250
    assert len(splits["select"]) == 500
    for rows in splits.values():
        assert np.abs(np.bincount(labels[rows]) / len(rows) - 0.25).max() < 0.03


def test_crops_of_three_photos_are_three_items_of_which_each_split_gets_one() -> None:
    groups = np.repeat([7, 8, 9], 100)
    splits = plan(Items(count=300, groups=groups), 0)
    assert [len(np.unique(groups[rows])) for rows in splits.values()] == [1, 1, 1]
    with pytest.raises(BadInput, match="2 groups can't be divided"):
        plan(Items(count=200, groups=groups[:200]), 0)


def test_the_order_of_select_does_not_tell_the_class() -> None:
    labels = np.repeat([0, 1], 4000)
    select = plan(Items(count=8000, strata=labels), 0)["select"]
    assert abs(labels[select[:200]].mean() - 0.5) < 0.15


def test_select_keeps_groups_together_in_an_order_that_does_not_tell_their_size() -> None:
    groups = np.concatenate(
        [np.repeat(np.arange(300), 2), np.repeat(np.arange(300, 600), 8), np.repeat([600, 601], 10)]
    )
    names = np.array(["select"] * 3000 + ["calibrate"] * 10 + ["certify"] * 10)
    order = groups[plan(Items(count=len(groups), groups=groups, names=names), 0)["select"]]
    firsts = order[np.r_[True, order[1:] != order[:-1]]]
    assert sorted(firsts.tolist()) == list(range(600)), "no group comes twice"
    assert abs((firsts[:300] >= 300).mean() - 0.5) < 0.15


def test_names_given_in_advance_are_kept() -> None:
    names = np.array(["calibrate"] * 3 + ["select"] * 4 + ["certify"] * 5 + ["train"] * 2)
    splits = plan(Items(count=14, names=names), 0)
    assert {name: sorted(rows.tolist()) for name, rows in splits.items()} == {
        "train": [12, 13], "calibrate": [0, 1, 2], "select": [3, 4, 5, 6], "certify": [7, 8, 9, 10, 11],
    }  # fmt: skip


def test_train_items_calibrate_and_test_items_are_judged() -> None:
    names = np.array(["train"] * 6000 + ["test"] * 1000)
    labels = np.arange(7000) % 10
    splits = plan(Items(count=7000, strata=labels, names=names), 0)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 5700, "calibrate": 300, "select": 250, "certify": 750,
    }  # fmt: skip
    assert max(splits["calibrate"].max(), splits["train"].max()) < 6000 <= min(splits["select"].min(), 6000)
    assert np.bincount(labels[splits["calibrate"]]).tolist() == [30] * 10


@pytest.mark.parametrize(("judged", "expected"), [(900, 300), (30_000, 5000)])
def test_more_items_select_where_networks_are_trained(judged: int, expected: int) -> None:
    names = np.repeat(["train", "test"], [800, judged])
    found = plan(Items(count=800 + judged, names=names, learning=True), seed=0)
    assert len(found["select"]) == expected
    assert len(found["certify"]) == judged - expected


def test_items_without_a_name_fill_what_is_missing() -> None:
    names = np.array(["certify"] * 50 + [""] * 100)
    splits = plan(Items(count=150, names=names), 0)
    assert set(range(50)) <= set(splits["certify"].tolist())
    assert (len(splits["calibrate"]), len(splits["select"])) == (12, 25)


@pytest.mark.parametrize(
    "names, message",
    [
        (["certify"] * 9, "no items are left to calibrate"),
        (["calibrate"] * 9 + ["certify"] * 9, "no items are left to select"),
        ([""] * 7, "7 items to judge are too few"),
    ],
)
def test_a_plan_that_leaves_a_split_empty_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        plan(Items(count=len(names), names=np.array(names)), 0)


def test_a_group_that_is_torn_between_named_splits_is_refused() -> None:
    names = np.array(["calibrate"] * 4 + ["select"] * 4 + ["certify"] * 4)
    groups = np.array(list("abcdefghhijk"))
    with pytest.raises(BadInput, match="'h' has items in select and in certify"):
        plan(Items(count=12, names=names, groups=groups), 0)


@given(st.integers(1, 500), st.data())
@settings(max_examples=60, deadline=None)
def test_even_positions_are_distinct_and_inside(count: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, count))
    positions = evenly(count, size)
    assert len(set(positions.tolist())) == size
    assert all(0 <= position < count for position in positions)
