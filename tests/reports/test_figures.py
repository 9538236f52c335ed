from __future__ import annotations

import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Comparison
from trimtab.reports import figures
from trimtab.reports.figures import style


@pytest.fixture(scope="module")
def drawn(result):
    return figures.every(result)


def test_a_whole_result_gives_every_figure(drawn):
    assert set(drawn) == set(figures.FIGURES)


def test_drawing_leaves_no_global_state(result):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    figures.every(result)
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_without_data_only_what_is_known_is_drawn(speed_only, unmet):
    assert "confusion" not in figures.every(speed_only)
    assert figures.confusion(unmet) is None
    assert figures.tradeoff(speed_only) is not None


def test_nothing_read_is_nothing_drawn(result):
    bare = tuple(replace(m, readings=(), traces=()) for m in result.comparison.measurements)
    assert figures.every(Comparison(measurements=bare)) == {}


def test_comparison_is_drawn_by_the_same_functions(result):
    drawn = figures.every(replace(result.comparison, measurements=result.comparison.measurements[:2]))
    assert set(drawn) == set(figures.FIGURES)


def test_saved_files_are_equal_when_drawn_again(result, drawn, tmp_path):
    first = figures.save(drawn, tmp_path / "a", ("svg",))
    second = figures.save(figures.every(result), tmp_path / "b", ("svg",))
    assert [path.name for path in first] == [f"{name}.svg" for name in drawn]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_each_figure_is_saved_in_every_format_asked_for(drawn, tmp_path):
    written = figures.save({"bars": drawn["bars"]}, tmp_path / "new" / "folder")
    assert written == [tmp_path / "new" / "folder" / f"bars.{format}" for format in ("png", "svg")]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    text = written[1].read_text()
    assert "median latency</text>" in text, "text stays text"
    assert "dc:date" not in text


def test_unknown_format_is_refused_before_anything_is_written(drawn, tmp_path):
    with pytest.raises(BadInput, match="'bmp'"):
        figures.save(drawn, tmp_path / "figures", ("png", "bmp"))
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_inline_svg_takes_every_colour_from_the_page(drawn, name):
    text = style.inline_svg(drawn[name], name, 'a "title" & more')
    assert ElementTree.fromstring(text.replace("xlink:href", "href")).tag.endswith("svg")
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", text)) == set()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert all(one.startswith(f"{name}-") for one in ids)
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]*)", text)
    assert set(used) <= set(ids)


def test_importing_figures_loads_no_drawing_library():
    import subprocess

    code = "import sys, trimtab.reports.figures, trimtab.reports.terminal, trimtab.reports.html; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "seaborn", "jinja2", "rich"} & set(loaded)
