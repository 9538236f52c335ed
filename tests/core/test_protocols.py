from __future__ import annotations

import inspect
from pathlib import Path
from typing import Protocol, get_type_hints

import pytest

from trimtab.core import plugins, protocols
from trimtab.core.protocols import (
    Choices,
    Described,
    Format,
    Informed,
    Meter,
    Renewable,
    Runtime,
    Samples,
    Store,
    Technique,
    Tracker,
)
from trimtab.core.values import Model, Settings, Signature, Variant
from trimtab.testing import PERCEPTRON, FakeProcessSession, FakeSession

SEAMS = {
    name: kind
    for name, kind in vars(protocols).items()
    if isinstance(kind, type) and Protocol in kind.__bases__ and kind is not Protocol
}
KINDS = {
    "formats": Format,
    "runtimes": Runtime,
    "meters": Meter,
    "techniques": Technique,
    "stores": Store,
    "trackers": Tracker,
}


def methods(seam: type) -> list[str]:
    return [name for name, value in vars(seam).items() if inspect.isfunction(value) and name[:2] != "__"] or [
        name for name in ("__call__",) if name in vars(seam)
    ]


@pytest.mark.parametrize("name", SEAMS)
def test_a_seam_has_one_to_three_methods_each_typed_and_described(name):
    found = methods(SEAMS[name])
    assert 1 <= len(found) <= 3
    for method in found:
        held = vars(SEAMS[name])[method]
        assert "return" in get_type_hints(held), f"{name}.{method} does not say what it returns"
        assert inspect.getdoc(held), f"{name}.{method} does not say what it does"


def test_there_is_a_group_of_entry_points_for_every_kind_of_plug_in():
    assert set(KINDS) == set(plugins.GROUPS)


@pytest.mark.parametrize("group", KINDS)
def test_every_plug_in_that_ships_fits_the_seam_of_its_group_and_no_other(group):
    for name in plugins.names(group):
        made = plugins.make(group, name)
        fitting = {other for other, seam in KINDS.items() if isinstance(made, seam)}
        assert fitting == {group}, f"{name} looks like one of {fitting}"
        assert made.name == name


def test_choices_keep_their_order_and_their_types():
    assert Choices(0.5, 0.25, None, "auto", True).values == (0.5, 0.25, None, "auto", True)
    assert Choices(1, 2) == Choices(1, 2) != Choices(2, 1)
    assert hash(Choices("a")) == hash(Choices("a")), "type hints must be hashable"


def test_what_a_session_may_offer_besides_is_seen_without_a_base_class():
    model = Model(format="onnx", path=Path("m.onnx"), digest="", signature=Signature(inputs=(), outputs=()))
    variant = Variant(model=model, settings=Settings(runtime="onnxruntime"))
    bare, full = (kind(variant, PERCEPTRON.answer) for kind in (FakeSession, FakeProcessSession))
    assert not isinstance(bare, Informed | Renewable)
    assert isinstance(full, Informed)
    assert isinstance(full, Renewable)
    assert isinstance(plugins.make("formats", "onnx"), Described)
    assert not isinstance(FakeSession, Described)


def test_samples_are_compared_by_identity_because_arrays_have_no_single_truth():
    import numpy as np

    times = np.ones(3, np.int64)
    assert Samples(times, times) != Samples(times, times)


@pytest.mark.parametrize("name", plugins.names("techniques"))
def test_every_dimension_of_a_search_is_an_option_with_several_values_of_one_kind(name):
    options = plugins.defaults("techniques", name)
    for option, tried in plugins.choices("techniques", name).items():
        assert option in options
        assert len(set(tried)) == len(tried) >= 2
        plugins.make("techniques", name, ((option, tried[-1]),))
