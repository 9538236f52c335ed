import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
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
    "name, given_",
    [
        ("resize", {"size": 10}), ("crop", {"size": 8}), ("rgb", {}), ("grey", {}), ("layout", {}), ("scale", {}),
        ("normalize", {"mean": 3, "std": 2}), ("cast", {"dtype": "float16"}), ("reshape", {"shape": -1}),
        ("pad", {"length": 50}),
    ],
)  # fmt: skip
def test_no_step_changes_the_batch_it_is_given_or_depends_on_its_size(name: str, given_: dict) -> None:
    before = COLOUR.copy()
    step = Step(technique=name, options=options(given_))
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
    wanted = {"resize": {"size": 4}, "crop": {"size": 4}}.get(name, {})
    with pytest.raises(BadInput, match="takes images"):
        STEPS[name](np.zeros((2, 10)), **wanted)


images = arrays("uint8", st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])))


@given(images)
@settings(max_examples=30, deadline=None)
def test_a_layout_only_moves_the_channels(batch: np.ndarray) -> None:
    np.testing.assert_array_equal(np.moveaxis(steps.layout(batch), 1, -1), batch)
    np.testing.assert_array_equal(steps.layout(batch, to="NHWC"), batch)


@given(images, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_a_crop_is_centred_to_within_half_a_pixel(batch: np.ndarray, height: int, width: int) -> None:
    tall, wide = batch.shape[1:3]
    if height > tall or width > wide:
        with pytest.raises(BadInput, match="resize it first"):
            steps.crop(batch, height=height, width=width)
        return
    position = np.broadcast_to(np.arange(tall)[None, :, None], (1, tall, wide))
    rows = steps.crop(position, height=height, width=width)[0, :, 0]
    assert steps.crop(batch, height=height, width=width).shape[1:3] == (height, width)
    assert abs(rows.mean() - (tall - 1) / 2) <= 0.5


@given(arrays("int16", st.tuples(st.integers(1, 3), st.integers(1, 20))), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_padding_keeps_what_fits_and_fills_the_rest(sound: np.ndarray, length: int) -> None:
    made = steps.pad(sound, length=length)
    kept = min(length, sound.shape[1])
    assert made.shape == (len(sound), length)
    np.testing.assert_array_equal(made[:, :kept], sound[:, :kept])
    assert not made[:, kept:].any()


def test_grey_of_floats_is_the_same_luma() -> None:
    floats = steps.grey(COLOUR.astype(np.float32))
    assert floats.dtype == np.float32
    assert np.abs(floats - steps.grey(COLOUR)).max() <= 0.51  # Pillow's 8 bits are rounded
    assert steps.grey(GREY[..., None]).shape == GREY.shape


def test_resampling_loud_sound_never_wraps_around() -> None:
    loud = np.tile(np.array([32767, -32768], np.int16), 200)[None]
    made = steps.resample(loud, rate=3, source_rate=2)
    assert np.abs(made.astype(int)).max() >= 32000
    np.testing.assert_allclose(made, np.clip(resample_poly(loud[0].astype(float), 3, 2), -32768, 32767)[None], atol=1)


@pytest.mark.parametrize(
    ("name", "given_", "batch", "message"),
    [
        ("resize", {}, COLOUR, "needs size .of the shorter side., or height and width; add one"),
        ("resize", {"size": 4, "height": 4}, COLOUR, "needs size .of the shorter side., or height and width"),
        ("resize", {"size": 4, "filter": "cubic"}, COLOUR, "no filter 'cubic'; choose one of bilinear, nearest"),
        ("crop", {"height": 3}, COLOUR, "crop needs size, or height and width; add them"),
        ("scale", {"divisor": 0}, COLOUR, "can't divide by 0; give another divisor"),
        ("normalize", {"std": "1, 0, 1", "axis": -1}, COLOUR, "can't divide by a std of 0; give another std"),
        ("normalize", {"mean": "a, b"}, COLOUR, "'a, b' is not a number or several separated by commas; mend"),
        ("pad", {"length": 4}, np.zeros(3), "pad needs items with an axis of time"),
        ("resize", {"size": "wide"}, COLOUR, "the step resize.size=wide. can't be done .*; check its options"),
    ],
)
def test_options_that_make_no_sense_are_one_clear_line(
    name: str, given_: dict, batch: np.ndarray, message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        run(Step(technique=name, options=options(given_)), batch)
    assert "\n" not in str(caught.value)


def test_the_rate_of_a_file_is_used_unless_the_step_says_another() -> None:
    sound = np.zeros((1, 1600), np.int16)
    to_8000 = Step(technique="resample", options=options(rate=8000))
    assert run(to_8000, sound, 16000).shape == (1, 800)
    said = Step(technique="resample", options=options(rate=8000, source_rate=32000))
    assert run(said, sound, 16000).shape == (1, 400)


def test_a_function_of_the_users_own_returns_one_row_per_item(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_steps.py").write_text(
        "def half(batch):\n    return batch / 2\ndef first(batch):\n    return batch[:1]\ndef total(batch):\n"
        "    return batch.sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    made = run(Step(technique="call", options=options(function="own_steps:half", once=True)), np.ones((3, 2)))
    np.testing.assert_array_equal(made, np.full((3, 2), 0.5))
    for name, shape in (("first", r"\[1, 2\]"), ("total", r"\[\]")):
        with pytest.raises(BadInput, match=f"own_steps:{name} returned {shape} for 3 items; return one row per item"):
            run(Step(technique="call", options=options(function=f"own_steps:{name}")), np.ones((3, 2)))


def test_every_step_may_be_bound_to_an_input_and_marked_as_done() -> None:
    for name, given_ in (("scale", {}), ("tokenize", {"tokenizer": "t.json"}), ("pad", {"length": 3})):
        step = Step(technique=name, options=options(given_, input="x", once=True))
        assert check(step) is step
        assert (steps.concerns(step, "x"), steps.concerns(step, "y"), steps.is_once(step)) == (True, False, True)
    with pytest.raises(BadInput, match="the step tokenize needs tokenizer; add tokenizer = "):
        check(Step(technique="tokenize"))
