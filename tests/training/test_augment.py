from __future__ import annotations

import sys

import pytest

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.training.recipe import AUGMENTATIONS

torch = pytest.importorskip("torch")

from trimtab.training.augment import Augment, mixed  # noqa: E402 (after the skip)

ALONE = [name for name in AUGMENTATIONS if name != "mixup"]


@pytest.fixture
def kornia() -> None:
    pytest.importorskip("kornia")


def images(count: int = 16, channels: int = 1, seed: int = 0):
    torch.manual_seed(seed)
    return torch.rand(count, channels, 12, 12) + 1  # zero is what comes in from outside the frame


def augmented(names, given, seed: int = 3):
    torch.manual_seed(seed)
    return Augment(names)(given)


@pytest.mark.usefixtures("kornia")
@pytest.mark.parametrize("names", [*([name] for name in ALONE), ALONE])
def test_the_same_seed_gives_the_same_images_and_another_one_others(names) -> None:
    given = images()
    assert torch.equal(augmented(names, given), augmented(names, given))
    assert not torch.equal(augmented(names, given), augmented(names, given, seed=4))


@pytest.mark.usefixtures("kornia")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALONE)
def test_shape_and_type_are_kept_and_what_was_given_is_left_alone(name, channels) -> None:
    given = images(channels=channels)
    before = given.clone()
    found = augmented([name], given)
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    assert torch.equal(given, before)
    assert not torch.equal(found, before)


@pytest.mark.usefixtures("kornia")
def test_making_the_augmentation_draws_no_random_numbers() -> None:
    given, augment = images(), Augment(["crop", "erase", "rotate"])
    torch.manual_seed(3)
    first = augment(given)
    torch.manual_seed(3)
    assert torch.equal(augment(given), first), "a fit that goes on makes it anew, in the middle"


@pytest.mark.parametrize("names", [[], ["mixup"]])
def test_without_augmentation_the_images_stay(names) -> None:
    given = images()
    assert Augment(names)(given) is given


@pytest.mark.usefixtures("kornia")
def test_flipping_what_is_symmetric_changes_nothing() -> None:
    given = images()
    symmetric = given + given.flip(-1)
    assert torch.equal(augmented(["flip"], symmetric), symmetric)


@pytest.mark.usefixtures("kornia")
def test_every_image_is_flipped_for_itself() -> None:
    given = images(200)
    found = augmented(["flip"], given)
    kept, turned = ((found == other).flatten(1).all(dim=1) for other in (given, given.flip(-1)))
    assert bool((kept ^ turned).all())
    assert 60 < int(turned.sum()) < 140


@pytest.mark.usefixtures("kornia")
def test_a_crop_moves_the_image_by_an_eighth_at_most_and_zero_comes_in() -> None:
    given = images(1).expand(64, -1, -1, -1).contiguous()
    found = augmented(["crop"], given)
    pad = 2  # an eighth of 12, rounded
    wide = torch.nn.functional.pad(given[:1], (pad,) * 4)
    moved = [wide[0, :, y : y + 12, x : x + 12] for y in range(5) for x in range(5)]
    assert all(any(torch.equal(each, other) for other in moved) for each in found)
    assert len({each.numpy().tobytes() for each in found}) > 10


@pytest.mark.usefixtures("kornia")
def test_erasing_makes_a_part_of_about_half_of_the_images_zero_and_leaves_the_rest() -> None:
    given = images(200)
    found = augmented(["erase"], given)
    gone = (found != given).flatten(1).float().mean(dim=1)
    assert bool(((found == given) | (found == 0)).all())
    assert 60 < int((gone > 0).sum()) < 140
    assert float(gone.max()) < 0.35


@pytest.mark.parametrize("shape", [(4, 12), (4, 1, 12), (4, 12, 12, 3)])
def test_what_is_no_image_is_refused(shape) -> None:
    with pytest.raises(BadInput, match=r"needs images \[items, channels, height, width\].*leave augment out"):
        Augment(["flip"])(torch.zeros(shape))


def test_without_kornia_the_error_says_how_to_get_it(monkeypatch) -> None:
    for name in ("kornia", "kornia.augmentation"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"augmentation needs the package kornia: pip install 'trimtab\[train\]'"):
        Augment(["flip"])(images())


def test_mixup_is_the_convex_combination_that_it_says() -> None:
    given = images()
    torch.manual_seed(5)
    found, order, share = mixed(given)
    assert sorted(order.tolist()) == list(range(16))
    torch.testing.assert_close(found, share * given + (1 - share) * given[order])


def test_the_share_of_mixup_is_beta_with_a_fifth_twice() -> None:
    torch.manual_seed(0)
    shares = torch.tensor([mixed(torch.zeros(2, 1, 1, 1))[2] for _ in range(2000)])
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(0.25 / 1.4, abs=0.01)  # ab / ((a + b)² (a + b + 1))
