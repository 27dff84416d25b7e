"""Distillation through SAM's frozen decoder: the second term, and stage A when it is off."""

import pytest
import torch
from segment_anything import SamPredictor
from tiny_esp import mixture, tiny_encoder
from tiny_sam import tiny_sam

from lib.data.mixture import BalancedStream
from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam import CommonConfig, CommonDistillation
from lib.training.esp_medsam.prompted import (
    PromptedConfig,
    PromptedDistillation,
    mask_divergence,
)
from lib.training.method import Progress

DATA = mixture()
STREAM = BalancedStream(DATA, labelled=range(12), labelled_batch=3, seed=3)
CLICKS = torch.tensor([[10.0, 20.0], [40.0, 8.0]])


def embeddings(seed):
    return torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(seed))


def frozen():
    return tiny_sam(64).requires_grad_(False)


@torch.no_grad()
def predicted(sam, embedding, click):
    """segment-anything's own predictor on a given embedding: the three masks' logits."""
    predictor = SamPredictor(sam)
    predictor.features, predictor.is_image_set = embedding[None], True
    predictor.original_size = predictor.input_size = (64, 64)
    points = predictor.transform.apply_coords_torch(click[None, None], (64, 64))
    return predictor.predict_torch(points, torch.ones(1, 1), return_logits=True)[2][0]


def test_divergence_is_that_of_the_masks_of_sams_own_predictor():
    sam, student, teacher = frozen(), embeddings(0), embeddings(1)
    terms = []
    for s, t, click in zip(student, teacher, CLICKS, strict=True):
        # the first of the four masks is the one that a predictor gives without multimask
        p, q = (torch.sigmoid(_all_four(sam, e, click)) for e in (t, s))
        terms.append(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    found = mask_divergence(sam, student, teacher, CLICKS)
    torch.testing.assert_close(found, torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def _all_four(sam, embedding, click):
    sparse, dense = sam.prompt_encoder((click[None, None], torch.ones(1, 1)), None, None)
    low, _ = sam.mask_decoder.predict_masks(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    torch.testing.assert_close(low[0, 1:], predicted(sam, embedding, click), rtol=1e-4, atol=1e-4)
    return low[0]


def test_equal_embeddings_cost_nothing_and_only_the_student_learns():
    sam, student, teacher = frozen(), embeddings(0).requires_grad_(), embeddings(1).requires_grad_()
    assert mask_divergence(sam, student, student.detach(), CLICKS).abs() < 1e-6
    mask_divergence(sam, student, teacher, CLICKS).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(parameter.grad is None for parameter in sam.parameters())


def prompted(**config):
    config = PromptedConfig(**config)
    return PromptedDistillation(config, encoder=tiny_encoder(), sam=FrozenSam(tiny_sam(64)))


def test_total_is_the_error_plus_the_weighted_masks():
    losses = prompted(masks=0.3).step(STREAM.batch(0), Progress(0, 10))
    assert losses["masks"] > 0
    assert losses.total.item() == pytest.approx(
        losses["embedding"].item() + 0.3 * losses["masks"].item(), rel=1e-5
    )


def test_weight_zero_is_stage_a():
    batch = STREAM.batch(0)
    off = prompted(masks=0.0).step(batch, Progress(0, 10))
    plain = CommonDistillation(
        CommonConfig(), encoder=tiny_encoder(), sam=FrozenSam(tiny_sam(64))
    ).step(batch, Progress(0, 10))
    assert torch.equal(off.total, plain.total)
    assert "masks" not in off


def test_second_term_reaches_the_encoder():
    method = prompted(masks=1.0)
    method.train()
    method.step(STREAM.batch(0), Progress(0, 10))["masks"].backward()
    assert method.encoder.neck[0].weight.grad.abs().sum() > 0


def test_negative_weight_is_refused():
    with pytest.raises(ValueError, match="masks=-1"):
        PromptedConfig(masks=-1)
