"""The parts of the benchmarks' assets that need no download and no PyTorch."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from trimtab.data.idx import read_idx
from trimtab.data.steps import run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def fetch(monkeypatch, tmp_path):
    import fetch

    monkeypatch.setattr(fetch, "WORK", tmp_path)
    return fetch


def archive(path, text):
    (path.parent / "readme").write_text(text)
    with tarfile.open(path, "w:gz") as file:
        file.add(path.parent / "readme", "package/readme")
    (path.parent / "readme").unlink()


def deliver(monkeypatch, fetch, text):
    """Stand for a registry that delivers one archive; count how often it is asked."""
    asked = []

    def download(package, target):
        asked.append(package)
        archive(target / "thing-1.0.tgz", text)

    monkeypatch.setattr(fetch, "_download", download)
    return asked


def test_a_package_is_fetched_once(monkeypatch, fetch):
    asked = deliver(monkeypatch, fetch, "first")
    package = fetch.Package("npm", "thing", "1.0")
    assert (fetch.fetch(package) / "package" / "readme").read_text() == "first"
    assert fetch.fetch(package) == fetch.fetch(package)
    assert len(asked) == 1


def test_a_fetch_that_was_cut_off_is_done_again(monkeypatch, fetch, tmp_path):
    deliver(monkeypatch, fetch, "first")
    package = fetch.Package("npm", "thing", "1.0")
    (tmp_path / "packages" / "thing" / "content").mkdir(parents=True)
    assert (fetch.fetch(package) / "package" / "readme").exists()


def test_another_content_under_the_same_name_is_refused(monkeypatch, fetch, tmp_path):
    package = fetch.Package("npm", "thing", "1.0")
    deliver(monkeypatch, fetch, "first")
    fetch.fetch(package)
    (tmp_path / "packages" / "thing" / "done").unlink()
    deliver(monkeypatch, fetch, "second")
    with pytest.raises(SystemExit, match="another content than at the first fetch"):
        fetch.fetch(package)


def test_a_missing_package_manager_is_named(monkeypatch, fetch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="npm is not on this machine"):
        fetch.fetch(fetch.Package("npm", "thing", "1.0"))


def test_idx_files_are_read_as_trimtab_reads_them(tmp_path):
    import items

    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    items.write_idx(tmp_path / "train-images-idx3-ubyte", array)
    np.testing.assert_array_equal(items.read_idx(tmp_path / "train-images-idx3-ubyte"), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "train-images-idx3-ubyte"), array)


def test_images_are_prepared_as_trimtab_prepares_them(tmp_path):
    import items
    from trimtab.data.preprocess import read_toml

    (tmp_path / "preprocess.toml").write_text(items.GREY_TO_IMAGENET)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    batch = images
    for step in read_toml(tmp_path / "preprocess.toml"):
        batch = run(step, batch)
    np.testing.assert_allclose(batch, items.imagenet_images(images), atol=1e-5)
