from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trimtab.core.errors import BadInput
from trimtab.core.values import Step, options
from trimtab.data.batches import prepared
from trimtab.data.preprocess import marked, spell
from trimtab.data.steps import is_once


def test_imagenet_is_resize_crop_and_normalize_on_the_usual_numbers(make_model) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
    steps = spell("imagenet", make_model(x=("float32", "N", 3, 224, 224)).signature)
    made = prepared({"x": image[None]}, steps)["x"]
    resized = Image.fromarray(image).resize((int(256 * 500 / 300), 256), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    cropped = np.asarray(resized.crop((left, top, left + 224, top + 224))) / 255.0
    expected = ((cropped - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    np.testing.assert_allclose(made[0], expected, atol=1e-6)


def test_presets_follow_the_layout_and_size_of_the_model(make_model) -> None:
    images = {"x": np.zeros((2, 28, 28), np.uint8)}
    shapes = {
        ("imagenet", (3, 96, 96)),
        ("imagenet", (128, 128, 3)),
        ("mnist", (1, 28, 28)),
        ("mnist", (28, 28, 1)),
        ("mnist", (784,)),
    }
    for name, shape in shapes:
        made = prepared(images, spell(name, make_model(x=("float32", "N", *shape)).signature))["x"]
        assert made.shape == (2, *shape)
        assert made.dtype == np.float32


def test_mnist_is_the_usual_formula(make_model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28)).astype(np.uint8)
    made = prepared({"x": images}, spell("mnist", make_model(x=("float32", "N", 1, 28, 28)).signature))["x"]
    np.testing.assert_allclose(made[:, 0], (images / 255 - 0.1307) / 0.3081, atol=1e-6)


def test_a_toml_file_lists_steps_in_their_order(tmp_path: Path, make_model) -> None:
    (tmp_path / "p.toml").write_text(
        '[[step]]\nname = "resize"\nsize = 8\n[[step]]\nname = "normalize"\nmean = [1, 2.5]\nstd = 2\ninput = "x"\n'
    )
    assert spell(str(tmp_path / "p.toml"), make_model().signature) == (
        Step(technique="resize", options=options(size=8)),
        Step(technique="normalize", options=options(mean="1, 2.5", std=2, input="x")),
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[step]\n", "can't be read as TOML"),
        ("", "lists no steps"),
        ("step = 3", "lists no steps"),
        ('[[step]]\nname = "blur"', "no preprocessing step 'blur'"),
        ('[[step]]\nname = "scale"\ndivisor = {a = 1}', "is not a number"),
    ],
)
def test_a_bad_toml_file_is_one_clear_line(tmp_path: Path, make_model, text: str, message: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        spell(tmp_path / "p.toml", make_model().signature)


def test_an_unknown_word_is_refused_with_what_is_known(make_model) -> None:
    with pytest.raises(BadInput, match=r"imagenet, mnist, a \.toml file"):
        spell("cifar", make_model().signature)


def test_steps_given_as_such_are_taken_after_a_check(make_model) -> None:
    given = [Step(technique="scale")]
    assert spell(given, make_model().signature) == tuple(given)
    assert spell(None, make_model().signature) == ()
    with pytest.raises(BadInput):
        spell([Step(technique="nothing")], make_model().signature)


def test_files_are_brought_to_one_size_once_and_arrays_only_by_users_functions() -> None:
    names = ("resize", "scale", "layout")
    steps = tuple(Step(technique=name) for name in names)
    assert [is_once(step) for step in marked(steps, by_item=True)] == [True, False, False]
    assert not any(is_once(step) for step in marked(steps, by_item=False))
    own = (steps[0], Step(technique="call", options=options(function="a:b")), steps[1])
    assert [is_once(step) for step in marked(own, by_item=False)] == [True, True, False]


def test_a_tokenizer_is_found_beside_the_toml_file(tmp_path: Path, make_model) -> None:
    (tmp_path / "p.toml").write_text('[[step]]\nname = "tokenize"\ntokenizer = "tokenizer.json"\nlength = 9\n')
    (step,) = spell(tmp_path / "p.toml", make_model().signature)
    assert dict(step.options) == {"tokenizer": str((tmp_path / "tokenizer.json").resolve()), "length": 9}


def test_a_tokenizer_or_its_folder_and_a_function_are_steps_of_their_own(tmp_path: Path, make_model) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for given in (tmp_path, tmp_path / "tokenizer.json"):
        (step,) = spell(given, make_model().signature)
        assert dict(step.options)["tokenizer"] == str(tmp_path / "tokenizer.json")
    assert spell("own.code:prepare", make_model().signature) == (
        Step(technique="call", options=options(function="own.code:prepare")),
    )


def test_steps_taken_from_a_task_are_done_anew(make_model) -> None:
    given = marked([Step(technique="resize", options=options(size=4))], by_item=True)
    assert is_once(given[0])
    assert spell(given, make_model().signature) == (Step(technique="resize", options=options(size=4)),)


def test_what_is_done_once_ends_with_the_last_step_that_changes_sizes() -> None:
    names = ("scale", "tokenize", "layout", "pad", "cast")
    steps = tuple(Step(technique=name) for name in names)
    assert [is_once(step) for step in marked(steps, by_item=True)] == [True, True, True, True, False]
    assert [is_once(step) for step in marked(steps, by_item=False)] == [True, True, False, False, False]
    assert marked((), by_item=True) == ()


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (96, 110), (299, 342)])
def test_imagenet_keeps_its_proportion_at_any_size(make_model, size: int, resized: int) -> None:
    first, second, *_ = spell("imagenet", make_model(x=("float32", "N", 3, size, size)).signature)
    assert (dict(first.options)["size"], dict(second.options)["size"]) == (resized, size)
    free = spell("imagenet", make_model(x=("float32", "N", 3, "H", "W")).signature)
    assert dict(free[1].options)["size"] == 224
