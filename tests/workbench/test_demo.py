from __future__ import annotations

import numpy as np
import pytest

from trimtab.assets import MAX_DROP, SPLIT_SIZES, digits
from trimtab.core import words
from trimtab.core.errors import BadInput
from trimtab.data.request import DataRequest
from trimtab.workbench.demo import demo_job, save_digits
from trimtab.workbench.opening import open_model
from trimtab.workbench.task import given_task


def test_the_demo_judges_by_the_items_that_the_network_never_saw(tmp_path):
    job = demo_job(tmp_path / "demo", 30)
    assert (job.effort.seconds, job.output) == (30, tmp_path / "demo")
    assert job.goal.max_drop == words.drop(MAX_DROP)
    original = open_model(job.model, tmp_path / "model")
    task = given_task(job.data, original.model, tmp_path / "data", DataRequest())
    assert {split.name: len(split) for split in task.splits} == dict(SPLIT_SIZES)
    assert (task.kind, task.metric, task.labelled) == ("classification", "accuracy", True)


def test_what_is_saved_to_play_with_is_the_same_task(tmp_path):
    model, data = save_digits(tmp_path / "new" / "folder")
    assert model.read_bytes() == digits().model.read_bytes()
    with np.load(data) as kept:
        assert np.array_equal(kept["inputs"], digits().inputs)
        assert np.array_equal(kept["labels"], digits().labels)
    opened = open_model(model, tmp_path / "work").model
    saved = given_task(data, opened, tmp_path / "saved", DataRequest())
    job = demo_job(tmp_path / "demo")
    shipped = given_task(job.data, open_model(job.model, tmp_path / "work").model, tmp_path / "data", DataRequest())
    assert saved.digest == shipped.digest


@pytest.mark.parametrize("name", ["digits.onnx", "digits.npz"])
def test_a_file_of_ones_own_is_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(BadInput, match=f"{name} is there already and is another file"):
        save_digits(tmp_path)
    assert (tmp_path / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_saving_again_leaves_what_was_there(tmp_path):
    for _ in range(2):
        paths = save_digits(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
