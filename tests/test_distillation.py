import math

import pytest
import torch
from torch.nn import functional

from lib.losses.distillation import distillation_loss


def logits(*pixels):
    """1 x C x 1 x N logits from N lists of C numbers."""
    return torch.tensor(pixels).T[None, :, None, :].clone()


def test_one_pixel_by_hand():
    # At T = 10 logits (0, 10 ln 3) are probabilities (1/4, 3/4); equal logits are (1/2, 1/2).
    teacher, student = logits([0.0, 10 * math.log(3)]), logits([2.0, 2.0])
    expected = 100 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    assert distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_mean_over_pixels_and_images():
    teacher = torch.randn(2, 4, 3, 5)
    student = torch.randn(2, 4, 3, 5)
    each = [
        distillation_loss(
            student[i : i + 1, :, r : r + 1, c : c + 1], teacher[i : i + 1, :, r : r + 1, c : c + 1]
        )
        for i in range(2)
        for r in range(3)
        for c in range(5)
    ]
    torch.testing.assert_close(distillation_loss(student, teacher), torch.stack(each).mean())


def test_is_torch_s_divergence_of_all_four_classes():
    student, teacher = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    rows_s, rows_t = (x.movedim(1, -1).reshape(-1, 4) / 3 for x in (student, teacher))
    expected = 9 * functional.kl_div(
        rows_s.log_softmax(1), rows_t.softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=3), expected)


def test_gradient_reaches_the_student_alone_and_keeps_its_size_at_any_temperature():
    sizes = {}
    for temperature in (10.0, 100.0):
        student = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        teacher = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        student.requires_grad_(), teacher.requires_grad_()
        distillation_loss(student, teacher, temperature=temperature).backward()
        assert teacher.grad is None
        sizes[temperature] = student.grad.norm()
    torch.testing.assert_close(sizes[10.0], sizes[100.0], rtol=0.1, atol=0)


def test_agreement_costs_nothing_and_infinite_confidence_stays_finite():
    same = torch.randn(1, 2, 3, 3)
    assert distillation_loss(same, same + 5).item() == pytest.approx(0, abs=1e-4)
    sure = logits([-1e4, 1e4]).requires_grad_()
    loss = distillation_loss(sure, logits([1e4, -1e4]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "message"),
    [
        ((1, 2, 4, 4), (1, 3, 4, 4), 10, "of one shape"),
        ((1, 1, 4, 4), (1, 1, 4, 4), 10, "C >= 2"),
        ((1, 2, 4, 4), (1, 2, 4, 4), 0, "temperature must be above 0"),
    ],
)
def test_wrong_input_is_named(student, teacher, temperature, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(torch.rand(student), torch.rand(teacher), temperature=temperature)


def test_pairs_of_classes_as_released():
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 2, 4, 5, 6)
    by_hand = []
    for first in (0, 2):  # the softmax of two logits is the sigmoid of their difference
        p, q = (
            torch.sigmoid((z[:, first + 1] - z[:, first]) / 10).double() for z in (teacher, student)
        )
        by_hand.append(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    found = distillation_loss(student, teacher, temperature=10.0, pairs=True)
    assert found.item() == pytest.approx(100 * torch.stack(by_hand).mean().item(), rel=1e-4)
    two = student[:, :2], teacher[:, :2]
    torch.testing.assert_close(distillation_loss(*two, pairs=True), distillation_loss(*two))
    with pytest.raises(ValueError, match="3 classes do not fall into pairs"):
        distillation_loss(student[:, :3], teacher[:, :3], pairs=True)
