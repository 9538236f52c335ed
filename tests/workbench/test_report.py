from __future__ import annotations

import pytest

from trimtab.core.errors import BadInput
from trimtab.workbench.plot import plot
from trimtab.workbench.report import read_result


def test_a_folder_without_a_finished_run_is_told(tmp_path):
    for read in (read_result, lambda folder: plot(folder, tmp_path / "figures")):
        with pytest.raises(BadInput, match=r"holds no finished run \(result\.json is missing\)"):
            read(tmp_path)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"goal": 3', b"\xff"])
def test_a_damaged_result_is_one_clear_line(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"result\.json is damaged or of another version") as raised:
        read_result(tmp_path)
    assert "\n" not in str(raised.value)
