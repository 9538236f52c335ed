from __future__ import annotations

import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Comparison, Reading
from trimtab.reports import figures, lineup
from trimtab.reports.figures import style
from trimtab.reports.figures.confusion import MOST_CLASSES, matrices
from trimtab.reports.figures.radar import spokes
from trimtab.reports.figures.throughput import by_batch
from trimtab.reports.figures.tradeoff import default_axes

NAME = "static-int8 on openvino"


@pytest.fixture(scope="module")
def drawn(result):
    return figures.every(result)


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


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
    first = figures.save(drawn, tmp_path / "a")
    second = figures.save(figures.every(result), tmp_path / "b")
    assert len(first) == 2 * len(drawn)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in first if path.suffix == ".png")


def test_unknown_format_is_refused_before_anything_is_written(drawn, tmp_path):
    with pytest.raises(BadInput, match="'bmp'"):
        figures.save(drawn, tmp_path / "figures", ("png", "bmp"))
    assert not (tmp_path / "figures").exists()


def test_svg_keeps_text_as_text_and_carries_no_date(drawn, tmp_path):
    for path in figures.save(drawn, tmp_path, ("svg",)):
        text = path.read_text()
        assert "<text" in text
        assert "dc:date" not in text


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_inline_svg_takes_every_colour_from_the_page(drawn, name):
    text = style.inline_svg(drawn[name], name, 'a "title" & more')
    assert ElementTree.fromstring(text.replace("xlink:href", "href")).tag.endswith("svg")
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", text)) == set()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert all(one.startswith(f"{name}-") for one in ids)
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]*)", text)
    assert set(used) <= set(ids)


def test_trade_off_draws_every_variant_that_was_timed_and_judged(result):
    figure = figures.tradeoff(result)
    shown = sorted(x for container in figure.axes[0].containers for x in container.lines[0].get_xdata())
    assert shown == pytest.approx([0.33, 1 / 2.9, 1.3 / 2.9, 1.8 / 2.9, 1.0])
    assert default_axes(result) == ("relative_time", "accuracy_change")
    assert "allowed loss" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_trade_off_takes_other_axes(result):
    figure = figures.tradeoff(result, "bytes", "latency_p50")
    assert figure.axes[0].get_xlabel() == "size (MB), lower is better"
    assert figure.axes[0].get_ylabel() == "median latency (ms), lower is better"


def test_front_is_drawn_through_the_unbeaten(result):
    front = next(line for line in figures.tradeoff(result).axes[0].lines if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == pytest.approx([0.33, 1 / 2.9, 1.3 / 2.9])


def test_confusion_matrices_count_what_was_read(result):
    given, best = lineup.original(result).measurement, lineup.champion(result).measurement
    classes, before, after = matrices(given, best, result.task.classes)
    assert classes == result.task.classes
    assert (before.sum(), after.sum()) == (1200, 1200)
    assert before[4, 9] == 6
    changed = {(int(i), int(j)): int((after - before)[i, j]) for i, j in zip(*np.nonzero(after - before), strict=True)}
    assert changed == {(4, 4): -2, (4, 9): 2, (5, 5): -1, (5, 3): 1, (8, 8): 1, (8, 3): -1, (9, 9): 1, (9, 4): -1}


def test_confusion_difference_is_written_with_its_sign(drawn):
    last = drawn["confusion"].axes[2]
    assert sorted(text.get_text() for text in last.texts) == ["+1", "+1", "+1", "+2", "−1", "−1", "−1", "−2"]


def test_confusion_without_change_says_so(result):
    measurements = (result.comparison.measurements[0], result.comparison.measurements[1])
    figure = figures.confusion(Comparison(measurements=measurements))
    assert [text.get_text() for text in figure.axes[2].texts] == ["no difference"]


def test_with_many_classes_those_that_changed_most_are_drawn(result):
    def cells(changed):
        names = [f"c{number}" for number in range(50)]
        return tuple(
            Reading(name="confusion_matrix", value=9.0 - (name in changed), place=f"{name}→{name}") for name in names
        )

    first, second = result.comparison.measurements[:2]
    changed = {f"c{number}" for number in range(20, 40)}
    figure = figures.confusion(
        Comparison(measurements=(replace(first, readings=cells(())), replace(second, readings=cells(changed))))
    )
    drawn = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert len(drawn) == MOST_CLASSES
    assert changed <= drawn
    assert any("of 50 classes" in text for text in texts(figure))


def test_unavailable_bar_is_said_and_not_drawn_as_zero(result):
    def blind(measurement):
        return replace(measurement, readings=tuple(r for r in measurement.readings if r.name != "peak_memory"))

    measurements = (result.comparison.measurements[0], blind(result.comparison.measurements[1]))
    figure = figures.bars(Comparison(measurements=measurements))
    memory = next(axes for axes in figure.axes if axes.get_title(loc="left") == "peak memory")
    assert len(memory.patches) == 1
    assert any("unavailable" in text.get_text() for text in memory.texts)


def test_modelled_bars_are_hatched_and_measured_ones_are_not(drawn):
    hatched = {
        axes.get_title(loc="left"): {bool(bar.get_hatch()) for bar in axes.patches} for axes in drawn["bars"].axes
    }
    assert hatched == {"median latency": {False}, "size": {False}, "peak memory": {True}}


def test_radar_scores_the_best_with_one_and_half_as_good_with_a_half(result):
    entries = lineup.finalists(result)[:4]
    found = spokes(entries, "accuracy")
    size = next(scores for label, scores in found.items() if label.startswith("size"))
    assert size[NAME] == 1.0
    assert size["as given"] == pytest.approx(0.47 / 1.69)
    rate = next(scores for label, scores in found.items() if label.startswith("throughput"))
    assert rate[NAME] == 1.0
    assert rate["as given"] == pytest.approx(1 / 2.9)
    assert all("is better" in label for label in found)
    assert not any(label.startswith("p99") for label in found)


def test_radar_leaves_a_gap_where_one_variant_lacks_a_reading(result):
    entries = list(lineup.finalists(result)[:3])
    lacking = tuple(r for r in entries[1].measurement.readings if r.name != "load_time")
    entries[1] = replace(entries[1], measurement=replace(entries[1].measurement, readings=lacking))
    scores = next(scores for label, scores in spokes(tuple(entries), "accuracy").items() if label.startswith("load"))
    assert np.isnan(scores["best untouched"])
    assert scores["as given"] == 1.0


def test_throughput_is_ordered_by_batch_size(result):
    assert list(by_batch(lineup.original(result))) == [1, 2, 4, 8, 16, 32]


def test_slow_outliers_turn_the_axis_of_the_box_plot_logarithmic(result):
    first = result.comparison.measurements[0]
    slow = replace(first, traces=tuple(replace(t, values=(*t.values, 1.0)) for t in first.traces))
    figure = figures.latency(Comparison(measurements=(slow, result.comparison.measurements[1])))
    assert figure.axes[0].get_xscale() == "log"


def test_importing_figures_loads_no_drawing_library():
    import subprocess

    code = "import sys, trimtab.reports.figures, trimtab.reports.terminal, trimtab.reports.html; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "seaborn", "jinja2", "rich"} & set(loaded)
