import numpy as np

from trimtab.core.values import Workload
from trimtab.data.synthetic import inputs


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
