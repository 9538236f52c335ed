"""Values travel with the files that they name, and name them where they arrive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Goal, Step, Task, Variant, options
from trimtab.data.batches import labels
from trimtab.search.making import Shop, make
from trimtab.search.parcel import below, moved, packed, unpacked, written
from trimtab.search.race import Race


def test_what_arrives_names_files_of_its_own_with_the_same_content(race: Race, task: Task, tmp_path: Path) -> None:
    base = tmp_path / "there"
    shop: Shop = unpacked(packed(race.shop), base)
    assert replace(shop.original.model, path=race.shop.original.model.path) == race.shop.original.model
    assert shop.original.model.path.read_bytes() == race.shop.original.model.path.read_bytes()
    assert shop.original.model.path.is_relative_to(base)
    for name in ("select", "certify"):
        np.testing.assert_array_equal(labels(shop.task.split(name)), labels(task.split(name)))
        assert shop.task.split(name).inputs[0].path.is_relative_to(base)
    assert shop.folder == below(base, race.shop.folder)
    assert shop.goal == race.shop.goal


def test_weights_beside_a_model_travel_with_it(original: Variant, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    shop = Shop(task=Task(), goal=Goal(max_drop=None), original=original, folder=tmp_path)
    made = make(shop, original, Step(technique="export-openvino"), 60, tmp_path / "log").variant
    arrived: Variant = unpacked(packed(made), tmp_path / "there")
    assert arrived.model.path.with_suffix(".bin").read_bytes() == made.model.path.with_suffix(".bin").read_bytes()


def test_absolute_paths_among_options_travel_and_other_words_stay(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("one")
    step = Step(technique="any", options=options(labels=str(file), how="/not/there", word="a/b", count=3))
    arrived: Step = unpacked(packed(step), tmp_path / "there")
    given = dict(arrived.options)
    assert Path(given["labels"]).read_text() == "one"
    assert Path(given["labels"]).is_relative_to(tmp_path / "there")
    assert (given["word"], given["count"]) == ("a/b", 3)
    back = moved(arrived, lambda path: Path("/") / path.relative_to(tmp_path / "there"))
    assert back == step


def test_a_relative_path_means_the_same_wherever_it_is_unpacked(
    original: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(original.model.path.parent)
    parcel = packed(replace(original.model, path=Path(original.model.path.name)))
    monkeypatch.chdir(tmp_path)
    assert unpacked(parcel, tmp_path / "there").path.read_bytes() == original.model.path.read_bytes()


def test_what_was_written_is_told_by_its_place_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_text("deep")
    (tmp_path / "d.txt").write_text("flat")
    assert written(tmp_path) == (("a/b/c.txt", b"deep"), ("d.txt", b"flat"))
