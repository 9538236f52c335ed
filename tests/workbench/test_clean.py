from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import BadInput, Busy
from trimtab.core.files import owned
from trimtab.search.progress import Silent
from trimtab.workbench.clean import free, leftovers
from trimtab.workbench.optimize import Effort, prepare


def run(folder: Path, finished: bool = False) -> Path:
    """Leave what a run leaves: 1,000 bytes in its work folder."""
    work = folder / "work"
    (work / "data").mkdir(parents=True)
    mark = "".join(f"{part} {'0123456789abcdef' * 2}\n" for part in ("model", "data", "goal"))
    (work / "run.txt").write_text(mark)
    (work / "data" / "a.npy").write_bytes(bytes(1000 - len(mark)))
    if finished:
        (folder / "manifest.json").write_text("{}")
        (folder / "report.html").write_text("report")
    return work


def test_finds_the_work_folders_of_runs_below_the_folders_given(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "deep" / "b", finished=True)
    (tmp_path / "c" / "work").mkdir(parents=True)
    (tmp_path / "c" / "work" / "mine.txt").write_text("not trimtab's")
    found = leftovers([tmp_path])
    assert [(item.folder, item.bytes, item.finished) for item in found] == [
        (tmp_path / "a" / "work", 1000, False),
        (tmp_path / "deep" / "b" / "work", 1000, True),
    ]


def test_a_run_is_listed_once_though_its_folder_is_named_twice(tmp_path):
    run(tmp_path / "a")
    assert len(leftovers([tmp_path, tmp_path / "a"])) == 1


def test_frees_the_work_and_leaves_bundle_and_report(tmp_path):
    run(tmp_path, finished=True)
    (found,) = leftovers([tmp_path])
    free(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "report.html"]
    assert leftovers([tmp_path]) == ()


def test_a_link_in_the_work_folder_is_removed_and_what_it_names_stays(tmp_path):
    work = run(tmp_path / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("")
    (work / "link").symlink_to(tmp_path / "mine")
    (found,) = leftovers([tmp_path / "a"])
    free(found)
    assert not work.exists()
    assert (tmp_path / "mine" / "precious").exists()


def test_a_run_that_still_works_is_left_alone(tmp_path):
    work = run(tmp_path)
    (found,) = leftovers([tmp_path])
    with owned(work), pytest.raises(Busy):
        free(found)
    assert (work / "data" / "a.npy").exists()


@pytest.mark.parametrize("content", ["", "my notes\n", "0123456789abcdef", "0123456789abcdef" * 2 + "\nand more\n"])
def test_a_folder_of_somebody_else_that_is_named_alike_is_never_touched(tmp_path, content):
    work = run(tmp_path)
    (work / "run.txt").write_text(content)
    assert leftovers([tmp_path]) == ()
    (work / "run.txt").unlink()
    (work / "run.txt").mkdir()
    assert leftovers([tmp_path]) == ()


def test_what_a_real_run_leaves_is_found(tmp_path, job):
    given = job(effort=Effort(seconds=5, trials=1, only=("onnxruntime",)))
    prepare(given, Silent())[0].close()
    (found,) = leftovers([tmp_path])
    assert (found.folder, found.finished) == (given.output / "work", False)
    assert found.bytes > 0
    free(found)
    assert leftovers([tmp_path]) == ()


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BadInput, match="there is no folder"):
        leftovers([tmp_path / "nowhere"])
