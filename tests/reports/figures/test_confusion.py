from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trimtab.core.values import Comparison, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.confusion import MOST_CLASSES, confusion, matrices


def compared(result, before, after):
    """A comparison of two models with these confusion matrices, cells by "true→predicted"."""

    def cells(found):
        return tuple(Reading(name="confusion_matrix", value=value, place=place) for place, value in found.items())

    first, second = result.comparison.measurements[:2]
    return Comparison(measurements=(replace(first, readings=cells(before)), replace(second, readings=cells(after))))


def shades(axes):
    array = np.ma.filled(axes.collections[0].get_array(), np.nan)
    side = int(np.sqrt(array.size))
    return array.reshape(side, side)


def written(axes):
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_matrices_count_what_was_read(result):
    given, best = lineup.original(result).measurement, lineup.champion(result).measurement
    classes, before, after = matrices(given.readings, best.readings, result.task.classes)
    assert classes == result.task.classes
    assert (before.sum(), after.sum()) == (1200, 1200)
    assert before[4, 9] == 6
    changed = {(int(i), int(j)): int((after - before)[i, j]) for i, j in zip(*np.nonzero(after - before), strict=True)}
    assert changed == {(4, 4): -2, (4, 9): 2, (5, 5): -1, (5, 3): 1, (8, 8): 1, (8, 3): -1, (9, 9): 1, (9, 4): -1}


def test_classes_keep_the_order_of_the_task_and_unknown_ones_follow(result):
    found = compared(result, {"cat→dog": 1.0, "ant→cat": 2.0}, {"dog→zebra": 3.0})
    classes, before, after = matrices(*(each.readings for each in found.measurements), ("dog", "cat", "owl"))
    assert classes == ("dog", "cat", "ant", "zebra"), "owl was never seen"
    assert before.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert after.tolist() == [[0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_cells_without_a_value_or_a_place_count_nothing(result):
    found = compared(result, {"a→a": 1.0, "a→b": None, "no arrow": 5.0}, {"a→a": 1.0})
    assert matrices(*(each.readings for each in found.measurements), ())[0] == ("a",)


def test_shades_are_the_square_root_of_the_share_of_the_true_class(result):
    figure = confusion(compared(result, {"a→a": 75.0, "a→b": 25.0, "b→b": 4.0}, {"a→a": 100.0, "b→a": 1.0, "b→b": 3.0}))
    assert np.allclose(shades(figure.axes[0]), [[np.sqrt(0.75), 0.5], [0.0, 1.0]])
    assert np.allclose(shades(figure.axes[1]), [[1.0, 0.0], [0.5, np.sqrt(0.75)]])


def test_the_difference_is_good_where_more_is_right_or_fewer_is_wrong(result):
    figure = confusion(compared(result, {"a→a": 96.0, "a→b": 4.0, "b→b": 9.0}, {"a→a": 100.0, "b→a": 1.0, "b→b": 8.0}))
    assert np.allclose(shades(figure.axes[2]), [[1.0, 1.0], [-0.5, -0.5]])
    assert written(figure.axes[2]) == {(0, 0): "+4", (0, 1): "−4", (1, 0): "+1", (1, 1): "−1"}


def test_counts_are_written_into_their_cells_and_zeros_are_not(result):
    figure = confusion(compared(result, {"a→a": 1234.0, "b→a": 2.0}, {"a→a": 1234.0, "b→a": 2.0}))
    assert written(figure.axes[0]) == {(0, 0): "1,234", (1, 0): "2"}
    assert [text.get_text() for text in figure.axes[2].texts] == ["no difference"]


def test_both_variants_are_named_and_the_axes_told(result):
    figure = confusion(result)
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert titles == ["as given", "static-int8 on openvino", "difference"]
    assert (figure.axes[0].get_ylabel(), figure.axes[1].get_xlabel()) == ("true class", "predicted class")


@pytest.mark.parametrize(("classes", "numbers"), [(20, 20), (21, 0)])
def test_with_too_many_cells_shades_alone_tell(result, classes, numbers):
    diagonal = {f"{number:02}→{number:02}": 3.0 for number in range(classes)}
    assert len(confusion(compared(result, diagonal, diagonal)).axes[0].texts) == numbers


def test_of_very_many_classes_those_that_changed_most_are_drawn_in_their_order(result):
    names = [f"c{number:02}" for number in range(50)]
    before = {f"{name}→{name}": 9.0 for name in names}
    after = before | {f"{name}→{name}": 8.0 for name in names[20:40]}
    figure = confusion(compared(result, before, after))
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(drawn) == MOST_CLASSES
    assert drawn == sorted(drawn)
    assert set(names[20:40]) <= set(drawn)
    assert figure.axes[1].get_xlabel() == "predicted class (the 30 of 50 classes that changed most)"


def test_without_two_matrices_there_is_no_figure(result, unmet, speed_only):
    assert confusion(unmet) is None
    assert confusion(speed_only) is None
    assert confusion(compared(result, {"a→a": 1.0}, {})) is None
