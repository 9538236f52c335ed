from dataclasses import replace

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import TensorSpec, Workload
from trimtab.data.synthetic import inputs, shapes


def test_shapes_and_dtypes_are_what_the_signature_says(make_model) -> None:
    signature = make_model(
        image=("float32", "N", 3, "H", "W"), ids=("int64", "N", "T"), attention_mask=("int32", "N", "T"),
        token_type_ids=("int64", "N", "T"), position_ids=("int64", "N", "T"), flags=("bool", "N", 4),
        raw=("uint8", 2, 5),
    ).signature  # fmt: skip
    made = inputs(signature, Workload(batch=3, lengths=(("T", 7), ("W", 32))), 0)
    assert {name: (array.dtype.name, array.shape) for name, array in made.items()} == {
        "image": ("float32", (3, 3, 224, 32)), "ids": ("int64", (3, 7)), "attention_mask": ("int32", (3, 7)),
        "token_type_ids": ("int64", (3, 7)), "position_ids": ("int64", (3, 7)), "flags": ("bool", (3, 4)),
        "raw": ("uint8", (2, 5)),
    }  # fmt: skip
    assert (made["attention_mask"] == 1).all()
    assert (made["token_type_ids"] == 0).all()
    assert (made["position_ids"] == np.arange(7)).all()
    assert 0 <= made["ids"].min() <= made["ids"].max() < 10


def test_the_same_seed_gives_the_same_inputs(make_model) -> None:
    signature = make_model(x=("float16", "N", 40)).signature
    first, again, other = (inputs(signature, Workload(batch=2), seed)["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_free_axis_named_like_the_batch_is_the_batch(make_model) -> None:
    made = inputs(make_model(a=("float32", "B", 2), b=("float32", 5, "B")).signature, Workload(batch=4), 0)
    assert made["b"].shape == (5, 4)


def test_what_nobody_said_is_a_usual_image_or_a_usual_sequence(make_model) -> None:
    signature = make_model(
        image=("float32", "N", "H", "W", 3), ids=("int64", "N", "T"), table=("float32", "N", "?"), one=("float32", 1)
    ).signature
    assert shapes(signature, Workload(batch=2, lengths=(("table:1", 5),))) == {
        "image": (2, 224, 224, 3), "ids": (2, 128), "table": (2, 5), "one": (1,),
    }  # fmt: skip


def test_states_are_no_inputs_that_a_caller_feeds(make_model) -> None:
    signature = make_model(x=("float32", "N", 4)).signature
    state = TensorSpec(name="h", dtype="float32", shape=("N", 7), role="state", fed_by="h_next")
    assert list(inputs(replace(signature, inputs=(*signature.inputs, state)), Workload())) == ["x"]


@pytest.mark.parametrize(("dtype", "highest"), [("uint8", 255), ("int8", 9), ("int32", 9), ("uint16", 9)])
def test_whole_numbers_fit_their_type_and_small_vocabularies(make_model, dtype: str, highest: int) -> None:
    made = inputs(make_model(x=(dtype, "N", 2000)).signature, Workload())["x"]
    assert (made.dtype.name, made.min(), made.max()) == (dtype, 0, highest)


def test_inputs_without_a_shape_or_without_a_number_are_made_too(make_model) -> None:
    made = inputs(make_model(position=("int64",), empty=("float32", "N", 0), mask=("bool",)).signature, Workload())
    assert (made["position"].shape, made["empty"].shape, made["mask"]) == ((), (1, 0), np.True_)


def test_strings_are_not_made_up(make_model) -> None:
    with pytest.raises(BadInput, match="'text' takes strings"):
        inputs(make_model(text=("object", "N")).signature, Workload())
