from __future__ import annotations

import pytest

from trimtab.core.errors import BadInput
from trimtab.training.recipe import Recipe, read_recipe

BAD = [
    ("epochs=0", "epochs=0 makes no sense: it must be at least 1"),
    ("epochs=2.5", "the training option epochs takes a whole number, not '2.5'"),
    ("batch=0", "batch=0 makes no sense"),
    ("accumulate=0", "accumulate=0 makes no sense"),
    ("accumulate=3", "batch=64 can't be divided into 3 equal parts; change accumulate"),
    ("optimizer=magic", "optimizer='magic' is not known; type one of sgd, adam, adamw, rmsprop, adam-then-sgd"),
    ("lr=0", "lr=0 makes no sense: it must be above 0"),
    ("lr=inf", "lr=inf makes no sense"),
    ("lr=nan", "lr=nan makes no sense"),
    ("lr=fast", "the training option lr takes none or a number, not 'fast'"),
    ("sgd_lr=-1", "sgd_lr=-1 makes no sense"),
    ("switch=never", 'switch=\'never\' is not understood; type "flat", "epoch:5" or "step:2000"'),
    ("switch=epoch:0", "switch='epoch:0' is not understood"),
    ("momentum=1", "momentum=1 makes no sense: it must be at least 0 and below 1"),
    ("weight_decay=-1e-4", "weight_decay=-0.0001 makes no sense"),
    ("l1=-1", "l1=-1 makes no sense"),
    ("schedule=linear", "schedule='linear' is not known; type one of cosine, step, one-cycle, constant"),
    ("warmup=-1", "warmup=-1 makes no sense"),
    ("augment=crop+shear", "augment='shear' is not known; join some of crop, flip, rotate, scale, erase, mixup with +"),
    ("augment=", "augment='' is not known"),
    ("label_smoothing=1", "label_smoothing=1 makes no sense"),
    ("dropout=1", "dropout=1 makes no sense"),
    ("class_weights=yes", "class_weights='yes' is not known; type one of none, balanced"),
    ("distill=1.5", "distill=1.5 makes no sense: it must be between 0 and 1"),
    ("temperature=0", "temperature=0 makes no sense"),
    ("clip=0", "clip=0 makes no sense"),
    ("ema=1", "ema=1 makes no sense"),
    ("patience=0", "patience=0 makes no sense"),
    ("precision=fp16", "precision='fp16' is not known; type one of fp32, bf16"),
    ("channels_last=maybe", "the training option channels_last takes true or false, not 'maybe'"),
    ("seed=-1", "seed=-1 makes no sense"),
    ("learning_rate=1", "training has no option 'learning_rate=1'; its options are: epochs, share, batch, accumulate"),
    ("epochs", "training has no option 'epochs'; its options are"),
]


@pytest.mark.parametrize(("typed", "says"), BAD, ids=[typed for typed, _ in BAD])
def test_what_makes_no_sense_is_refused_in_one_line_that_names_the_option(typed: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_recipe([typed])
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_what_was_typed_gets_the_type_of_its_option() -> None:
    typed = ["epochs=3", "lr=1", "momentum=0", "clip=none", "patience=2", "compile=true", "augment=crop + flip"]
    made = read_recipe(typed)
    assert made == Recipe(epochs=3, lr=1.0, momentum=0.0, patience=2, compile=True, augment="crop + flip")
    assert [type(value) for value in (made.epochs, made.lr, made.momentum)] == [int, float, float]
    assert made.clip is None
    assert made.augmentations == ("crop", "flip")


def test_without_augmentation_there_are_no_names() -> None:
    assert Recipe().augmentations == ()


def test_what_is_typed_takes_the_place_of_the_base_and_what_comes_last_counts() -> None:
    base = Recipe(epochs=7, lr=0.1)
    assert read_recipe(["lr=0.2", "lr=0.3"], base) == Recipe(epochs=7, lr=0.3)
    assert base == Recipe(epochs=7, lr=0.1)


def test_only_what_differs_from_the_defaults_is_told() -> None:
    assert Recipe().changed() == ()
    assert Recipe(seed=3, optimizer="sgd", lr=None).changed() == (("optimizer", "sgd"), ("seed", 3))


def test_options_are_every_field_by_its_name() -> None:
    assert Recipe(**dict(Recipe(epochs=4, augment="flip").options())) == Recipe(epochs=4, augment="flip")


@pytest.mark.parametrize(
    ("switch", "expected"), [("flat", None), ("epoch:5", ("epoch", 5)), ("step:2000", ("step", 2000))]
)
def test_a_switch_is_at_an_epoch_at_a_step_or_where_the_curve_is_flat(switch: str, expected: object) -> None:
    assert Recipe(switch=switch).switches_at == expected
