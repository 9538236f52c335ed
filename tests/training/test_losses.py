"""Losses against PyTorch's own, and against sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.core.values import Task
from trimtab.training.recipe import Recipe

torch = pytest.importorskip("torch")

from trimtab.training.losses import Loss, add_l1, balanced, l1_norm  # noqa: E402 (after the skip)

functional = torch.nn.functional
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 0])


def outputs(*shape: int) -> Any:
    torch.manual_seed(0)
    return torch.randn(shape, requires_grad=True)


def loss(kind: str = "classification", labels: Any = LABELS, classes: int = 3, **given: Any) -> Loss:
    return Loss(Task(kind=kind, classes=tuple(map(str, range(classes)))), Recipe(**given), labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_classes_have_the_cross_entropy_of_pytorch(smoothing: float, weights: str) -> None:
    given, labels = outputs(8, 3), torch.from_numpy(LABELS)
    each = None if weights == "none" else torch.tensor([8 / 15, 8 / 6, 8 / 3])
    wanted = functional.cross_entropy(given, labels, each, label_smoothing=smoothing)
    torch.testing.assert_close(loss(label_smoothing=smoothing, class_weights=weights)(given, labels), wanted)


def test_axes_of_length_one_do_not_matter() -> None:
    labels = torch.from_numpy(LABELS)
    assert torch.equal(loss()(outputs(8, 3, 1, 1), labels), loss()(outputs(8, 3), labels))


def test_one_logit_has_the_binary_cross_entropy_of_pytorch() -> None:
    given, labels = outputs(8, 1), torch.tensor([0, 1, 1, 0, 0, 0, 0, 0])
    plain = loss("binary", labels.numpy(), 2)(given, labels)
    torch.testing.assert_close(plain, functional.binary_cross_entropy_with_logits(given[:, 0], labels.float()))
    smooth = loss("binary", labels.numpy(), 2, label_smoothing=0.2)(given, labels)
    target = torch.where(labels == 1, 0.9, 0.1)
    torch.testing.assert_close(smooth, functional.binary_cross_entropy_with_logits(given[:, 0], target))
    weighed = loss("binary", labels.numpy(), 2, class_weights="balanced")(given, labels)
    each = torch.where(labels == 1, 8 / 4, 8 / 12)
    expected = functional.binary_cross_entropy_with_logits(given[:, 0], labels.float(), each)
    torch.testing.assert_close(weighed, expected)


def test_one_logit_is_two_of_which_the_other_is_zero() -> None:
    given, labels = outputs(8, 1), torch.tensor([0, 1, 1, 0, 0, 0, 0, 1])
    both = torch.cat([torch.zeros(8, 1), given], dim=1)
    for smoothing in (0.0, 0.2):
        made = loss("binary", labels.numpy(), 2, label_smoothing=smoothing)
        torch.testing.assert_close(made(given, labels), made(both, labels))


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 4)])
def test_numbers_have_the_mean_squared_error(shape: tuple[int, ...]) -> None:
    given = outputs(*shape)
    wanted = np.random.default_rng(0).normal(size=shape if shape != (8, 1) else 8)
    expected = np.mean((given.detach().numpy().reshape(wanted.shape) - wanted) ** 2)
    found = loss("regression", wanted)(given, torch.from_numpy(wanted))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_widened_first() -> None:
    labels, narrow = torch.from_numpy(LABELS), outputs(8, 3).bfloat16()
    assert loss()(narrow, labels).dtype == torch.float32
    assert torch.equal(loss()(narrow, labels), functional.cross_entropy(narrow.float(), labels))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_balanced_weights_are_one_on_average_and_give_every_class_the_same_share(drawn: list[int]) -> None:
    labels = np.array(drawn)
    weights = balanced(labels, 7)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    shares = [weights[label] * np.count_nonzero(labels == label) for label in set(drawn)]
    np.testing.assert_allclose(shares, len(drawn) / len(shares), rtol=1e-5)
    assert np.isfinite(weights).all()


def test_without_labels_there_is_nothing_to_learn_but_from_a_teacher() -> None:
    with pytest.raises(BadInput, match="training needs labels and the items to train on have none"):
        loss(labels=None)
    with pytest.raises(BadInput, match="training needs labels"):
        loss(labels=None, distill=0.5)
    loss(labels=None, distill=1.0)


def test_the_l1_norm_is_the_sum_of_all_magnitudes() -> None:
    assert float(l1_norm([torch.tensor([[1.0, -2.0]]), torch.tensor([[-3.0]])])) == 6


def test_a_teacher_of_classes_is_followed_as_hinton_wrote_it_down() -> None:
    student, teacher, soft = outputs(8, 3), torch.randn(8, 3), 4.0
    p, q = (torch.softmax(each / soft, dim=1) for each in (teacher, student))
    expected = soft**2 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(loss(distill=0.5).taught(student, teacher), expected)


def test_a_teacher_of_one_logit_is_followed_as_one_of_two_classes() -> None:
    made = loss("binary", LABELS.clip(0, 1), 2, distill=0.5, temperature=2.0)
    student, teacher = outputs(8, 1), torch.randn(8, 1)
    p, q = torch.sigmoid(teacher / 2), torch.sigmoid(student / 2)
    expected = -4 * (p * q.log() + (1 - p) * (1 - q).log()).mean()
    torch.testing.assert_close(made.taught(student, teacher), expected)


def test_a_teacher_of_numbers_is_followed_by_the_squared_error() -> None:
    student, teacher = outputs(8, 2), torch.randn(8, 2)
    made = loss("regression", np.zeros(8), distill=0.5)
    torch.testing.assert_close(made.taught(student, teacher), ((student - teacher) ** 2).mean())


@pytest.mark.parametrize(("kind", "width"), [("classification", 3), ("binary", 1), ("regression", 2)])
def test_who_answers_as_the_teacher_does_has_nothing_to_learn(kind: str, width: int) -> None:
    student = outputs(8, width)
    loss(kind, LABELS.clip(0, 1), distill=0.5).taught(student, student.detach().clone()).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(BadInput, match="the teacher answers 5 numbers an item and the network 3"):
        loss(distill=0.5).taught(outputs(8, 3), torch.zeros(8, 5))


def test_the_gradient_of_an_l1_penalty_is_what_autograd_finds() -> None:
    start = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.5, -0.1]])
    one, other = (start.clone().requires_grad_() for _ in range(2))
    (one.square().sum() + 0.3 * l1_norm([one])).backward()
    other.square().sum().backward()
    bare = start.clone().requires_grad_()
    assert add_l1([other, bare], 0.3) == pytest.approx(2 * 0.3 * float(l1_norm([start])))
    torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(bare.grad, 0.3 * start.sign())
