import numpy as np
import pytest
from PIL import Image
from scipy.signal import resample_poly

from trimtab.core.errors import BadInput
from trimtab.core.values import Step, options
from trimtab.data import steps
from trimtab.data.steps import STEPS, check, run

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (3, 40, 30, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (3, 40, 30)).astype(np.uint8)


@pytest.mark.parametrize("batch", [COLOUR, GREY])
@pytest.mark.parametrize("target", [(20, 11), (64, 64)])
def test_resize_is_what_pillow_does(batch: np.ndarray, target: tuple[int, int]) -> None:
    height, width = target
    expected = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in batch]
    np.testing.assert_array_equal(steps.resize(batch, height=height, width=width), np.stack(expected))


def test_resize_to_a_size_keeps_the_shape_of_the_image() -> None:
    assert steps.resize(COLOUR, size=15).shape == (3, 20, 15, 3)
    assert steps.resize(COLOUR.swapaxes(1, 2), size=60).shape == (3, 60, 80, 3)


def test_resize_keeps_floats_and_deep_images() -> None:
    as_float = steps.resize(GREY.astype(np.float32), height=10, width=10)
    assert as_float.dtype == np.float32
    assert np.abs(as_float - steps.resize(GREY, height=10, width=10)).max() <= 1  # Pillow rounds 8-bit images twice
    deep = steps.resize(GREY.astype(np.uint16) * 256, height=10, width=10)
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep, as_float * 256, atol=1)


def test_crop_takes_the_centre() -> None:
    np.testing.assert_array_equal(steps.crop(COLOUR, size=10), COLOUR[:, 15:25, 10:20])
    np.testing.assert_array_equal(steps.crop(GREY, height=40, width=20), GREY[:, :, 5:25])
    with pytest.raises(BadInput, match="larger than the image"):
        steps.crop(GREY, size=41)


def test_grey_is_what_pillow_does() -> None:
    expected = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in COLOUR])
    np.testing.assert_array_equal(steps.grey(COLOUR), expected)
    np.testing.assert_array_equal(steps.grey(GREY), GREY)


def test_rgb_repeats_grey_and_leaves_colour_alone() -> None:
    made = steps.rgb(GREY)
    assert made.shape == (3, 40, 30, 3)
    assert all((made[..., channel] == GREY).all() for channel in range(3))
    np.testing.assert_array_equal(steps.rgb(COLOUR), COLOUR)


def test_layout_puts_the_channel_axis_where_it_is_wanted() -> None:
    assert steps.layout(COLOUR).shape == (3, 3, 40, 30)
    np.testing.assert_array_equal(steps.layout(COLOUR)[:, 1], COLOUR[..., 1])
    assert steps.layout(GREY).shape == (3, 1, 40, 30)
    assert steps.layout(GREY, to="NHWC").shape == (3, 40, 30, 1)
    with pytest.raises(BadInput, match="NCHW or NHWC"):
        steps.layout(GREY, to="CHW")


def test_scale_and_normalize_are_the_textbook_formula_in_float32() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    made = steps.normalize(steps.scale(steps.layout(COLOUR)), mean="0.485, 0.456, 0.406", std="0.229, 0.224, 0.225")
    expected = ((COLOUR / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)
    with pytest.raises(BadInput, match="3 values of mean for 40 channels"):
        steps.normalize(COLOUR, mean="1, 2, 3")


def test_resample_is_scipys_polyphase_filter_and_keeps_the_dtype() -> None:
    sound = (np.sin(np.arange(4410) * 0.05) * 20000).astype(np.int16)[None]
    made = steps.resample(sound, rate=16000, source_rate=44100)
    assert made.shape == (1, 1600)
    assert made.dtype == np.int16
    np.testing.assert_allclose(made[0], resample_poly(sound[0].astype(float), 160, 441), atol=1)
    assert steps.resample(sound, rate=8000, source_rate=8000) is sound
    with pytest.raises(BadInput, match="source_rate"):
        steps.resample(sound, rate=8000)


def test_pad_makes_items_exactly_as_long_as_asked() -> None:
    sound = np.arange(10).reshape(2, 5)
    assert steps.pad(sound, length=7, value=9).tolist() == [[0, 1, 2, 3, 4, 9, 9], [5, 6, 7, 8, 9, 9, 9]]
    assert steps.pad(sound, length=2).tolist() == [[0, 1], [5, 6]]
    assert steps.pad(np.ones((2, 5, 3)), length=6).shape == (2, 6, 3)


def test_mono_averages_channels() -> None:
    assert steps.mono(np.array([[[1, 3], [10, 20]]], dtype=np.int16)).tolist() == [[2, 15]]


def test_reshape_and_cast() -> None:
    assert steps.reshape(GREY, shape="-1").shape == (3, 1200)
    assert steps.reshape(GREY, shape="1, 30, 40").shape == (3, 1, 30, 40)
    with pytest.raises(BadInput, match="can't be reshaped"):
        steps.reshape(GREY, shape="7")
    assert steps.cast(GREY, dtype="int32").dtype == np.int32
    with pytest.raises(BadInput, match="no dtype"):
        steps.cast(GREY, dtype="floaty")


@pytest.mark.parametrize(
    "name, given",
    [
        ("resize", {"size": 10}), ("crop", {"size": 8}), ("rgb", {}), ("grey", {}), ("layout", {}), ("scale", {}),
        ("normalize", {"mean": 3, "std": 2}), ("cast", {"dtype": "float16"}), ("reshape", {"shape": -1}),
        ("pad", {"length": 50}),
    ],
)  # fmt: skip
def test_no_step_changes_the_batch_it_is_given_or_depends_on_its_size(name: str, given: dict) -> None:
    before = COLOUR.copy()
    step = Step(technique=name, options=options(given))
    whole = run(step, COLOUR)
    np.testing.assert_array_equal(COLOUR, before)
    np.testing.assert_array_equal(np.concatenate([run(step, COLOUR[row : row + 1]) for row in range(3)]), whole)


def test_unknown_steps_and_options_are_refused_with_what_is_known() -> None:
    with pytest.raises(BadInput, match="no preprocessing step 'blur'; known are: resize"):
        check(Step(technique="blur"))
    with pytest.raises(BadInput, match="no option 'by'; its options are: divisor"):
        check(Step(technique="scale", options=options(by=2)))
    with pytest.raises(BadInput, match="needs dtype"):
        check(Step(technique="cast"))


@pytest.mark.parametrize("name", ["resize", "crop", "rgb", "grey", "layout"])
def test_image_steps_say_when_the_items_are_no_images(name: str) -> None:
    given = {"resize": {"size": 4}, "crop": {"size": 4}}.get(name, {})
    with pytest.raises(BadInput, match="takes images"):
        STEPS[name](np.zeros((2, 10)), **given)
