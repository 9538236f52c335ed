from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Split
from trimtab.data.arrays import save_array
from trimtab.serving.evidence import EVIDENCE, item_digests, read_evidence, write_evidence

INPUTS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
OUTPUTS = INPUTS[:, :3] * 2


def split(folder: Path, rows: list[int] | range, labelled: bool = True) -> Split:
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.array(rows)
    return Split(
        name=folder.name,
        inputs=(save_array("x", folder / "x.npy", INPUTS[chosen]),),
        rows=save_array("rows", folder / "rows.npy", chosen),
        labels=save_array("labels", folder / "labels.npy", chosen % 3) if labelled else None,
    )


def test_reads_back_what_was_written(tmp_path):
    certified = split(tmp_path / "certify", range(10))
    write_evidence(tmp_path, certified, OUTPUTS[:10])
    found = read_evidence(tmp_path)
    assert found.digests == tuple(item_digests(certified))
    assert np.array_equal(found.outputs, OUTPUTS[:10])
    assert found.labelled
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certify", EVIDENCE]


def test_says_when_there_were_no_labels(tmp_path):
    write_evidence(tmp_path, split(tmp_path / "certify", range(10), labelled=False), OUTPUTS[:10])
    assert not read_evidence(tmp_path).labelled


def test_items_are_found_by_their_content_wherever_they_are(tmp_path):
    write_evidence(tmp_path, split(tmp_path / "certify", [3, 8, 20, 29]), OUTPUTS[[3, 8, 20, 29]])
    here = [split(tmp_path / "one", [8, 5, 3]), split(tmp_path / "two", [0, 1, 29])]
    assert read_evidence(tmp_path).places(here).tolist() == [[0, 2], [0, 0], [-1, -1], [1, 2]]


def test_an_item_is_known_by_its_label_too_whatever_the_type_of_the_numbers(tmp_path):
    first, again = split(tmp_path / "one", [3, 8]), split(tmp_path / "two", [3, 8])
    labels = save_array("labels", tmp_path / "two" / "labels.npy", np.array([0, 2], dtype=np.int32))
    assert item_digests(replace(again, labels=labels)) == item_digests(first)
    other = save_array("labels", tmp_path / "two" / "labels.npy", np.array([0, 1]))
    assert [a == b for a, b in zip(item_digests(replace(again, labels=other)), item_digests(first), strict=True)] == [
        True,
        False,
    ]


def test_an_item_that_occurs_twice_is_counted_twice_as_it_was_certified(tmp_path):
    write_evidence(tmp_path, split(tmp_path / "certify", [3, 3, 8]), OUTPUTS[[3, 3, 8]])
    places = read_evidence(tmp_path).places([split(tmp_path / "one", [8, 3, 3])])
    assert places[:, 0].tolist() == [0, 0, 0]
    assert places[2].tolist() == [0, 0]


def test_a_bundle_without_evidence_has_nothing_to_verify(tmp_path):
    with pytest.raises(BadInput, match="was not certified, there is nothing to verify"):
        read_evidence(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, 300])
def test_damaged_evidence_is_one_clear_line(tmp_path, keep):
    write_evidence(tmp_path, split(tmp_path / "certify", range(10)), OUTPUTS[:10])
    path = tmp_path / EVIDENCE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"evidence\.npz is damaged"):
        read_evidence(tmp_path)


def test_evidence_of_another_shape_is_refused(tmp_path):
    np.savez(tmp_path / EVIDENCE, digests=np.zeros((3, 16), np.uint8), outputs=np.zeros((2, 3)), labelled=True)
    with pytest.raises(BadInput, match="it names 3 items and answers 2"):
        read_evidence(tmp_path)


def test_a_pickle_in_the_evidence_is_never_loaded(tmp_path):
    np.savez(tmp_path / EVIDENCE, digests=np.zeros((1, 16), np.uint8), outputs=np.array([{}]), labelled=True)
    with pytest.raises(BadInput, match="is damaged"):
        read_evidence(tmp_path)
