from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Step, Task, options
from trimtab.data.batches import ahead, batches, feeds, groups, labels, prepare_raw, prepared
from trimtab.data.task import open_task

IMAGES = np.random.default_rng(0).integers(0, 256, (200, 6, 6)).astype(np.uint8)


@pytest.fixture
def task(tmp_path: Path, make_model) -> Task:
    steps = (Step(technique="layout"), Step(technique="scale"))
    from trimtab.data.request import DataRequest

    model = make_model(x=("float32", "N", 1, 6, 6))
    source = {"x": IMAGES, "labels": np.arange(200) % 10, "groups": np.arange(200) // 2}
    return open_task(source, model, tmp_path, DataRequest(preprocess=steps))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_are_the_split_in_order_and_prepared(task: Task, size: int) -> None:
    split = task.split("select")
    made = list(batches(task, split, size))
    expected = IMAGES[np.load(split.rows.path)][:, None] / np.float32(255)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in made]), expected)
    assert all(len(feed["x"]) == size for feed in made[:-1])
    assert all(feed["x"].flags.c_contiguous and feed["x"].dtype == np.float32 for feed in made)


def test_feeds_of_chosen_items_are_those_of_the_batches(task: Task) -> None:
    split = task.split("certify")
    whole = next(batches(task, split, len(split)))["x"]
    np.testing.assert_array_equal(feeds(task, split, slice(3, 9))["x"], whole[3:9])
    np.testing.assert_array_equal(feeds(task, split, np.array([5, 0, 5]))["x"], whole[[5, 0, 5]])


def test_labels_and_groups_belong_to_the_rows(task: Task) -> None:
    for split in task.splits:
        rows = np.load(split.rows.path)
        np.testing.assert_array_equal(labels(split), rows % 10)
        assert len(np.unique(groups(split))) == len(np.unique(rows // 2))


def test_steps_bound_to_one_input_leave_the_others_alone() -> None:
    raw = {"a": np.ones((2, 3)), "b": np.ones((2, 3))}
    made = prepared(raw, (Step(technique="scale", options=options(divisor=2.0, input="b")),))
    assert (made["a"][0, 0], made["b"][0, 0]) == (1.0, 0.5)


def test_steps_that_were_done_once_are_not_done_again() -> None:
    made = prepared({"a": np.ones((2, 3))}, (Step(technique="scale", options=options(divisor=2.0, once=True)),))
    assert (made["a"] == 1).all()


def test_several_inputs_are_handed_out_side_by_side(tmp_path: Path, make_model) -> None:
    model = make_model(ids=("int64", "N", 3), weight=("float32", "N"))
    source = {"ids": np.arange(120).reshape(40, 3), "weight": np.arange(40, dtype=np.float32)}
    task = open_task(source, model, tmp_path)
    split = task.split("certify")
    for feed in batches(task, split, 7):
        np.testing.assert_array_equal(feed["ids"][:, 0], 3 * feed["weight"])
    assert (labels(split), groups(split)) == (None, None)


def test_preparing_leaves_the_given_arrays_alone() -> None:
    raw = {"a": np.full((2, 3), 4.0)}
    steps = (
        Step(technique="scale", options=options(divisor=2.0)),
        Step(technique="normalize", options=options(mean=1)),
    )
    assert (prepared(raw, steps)["a"] == 1).all()
    assert (raw["a"] == 4).all()


def test_raw_items_pass_through_every_step_also_those_done_once(make_model) -> None:
    steps = (
        Step(technique="resize", options=options(size=4, once=True)),
        Step(technique="layout"),
        Step(technique="scale", options=options(divisor=255.0, input="x")),
    )
    made = prepare_raw({"x": np.full((2, 8, 8, 3), 51, np.uint8)}, steps, make_model(x=("float32", "N", 3, 4, 4)))
    assert made["x"].shape == (2, 3, 4, 4)
    np.testing.assert_allclose(made["x"], 0.2, rtol=1e-6)


def test_looking_ahead_changes_neither_order_nor_number() -> None:
    given = [{"x": np.full(2, number)} for number in range(7)]
    assert [feed["x"][0] for feed in ahead(iter(given))] == list(range(7))
    assert list(ahead(iter([]))) == []


def test_looking_ahead_prepares_one_feed_and_not_more() -> None:
    made = []

    def feeds_made():
        for number in range(10):
            made.append(number)
            yield {"x": np.zeros(number)}

    coming = ahead(feeds_made())
    next(coming)
    next(coming)
    coming.close()
    assert len(made) == 3


def test_an_error_while_preparing_ahead_reaches_the_user() -> None:
    def broken():
        yield {"x": np.zeros(1)}
        raise ValueError("row 1 is damaged")

    coming = ahead(broken())
    next(coming)
    with pytest.raises(ValueError, match="row 1"):
        next(coming)
