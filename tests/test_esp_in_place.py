"""Another encoder in SAM's place: which objects, which masks, which scores."""

import pytest
import torch
from tiny_sam import tiny_sam

from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam.in_place import encoder_scores, masks_by_prompt
from lib.training.prompt_trials import largest_objects, mask_ious


class Three:
    """Images 0, 1, 2 of 64 px; the second is empty, the last has a large and a small object."""

    title = "three"

    def __len__(self):
        return 3

    def image(self, index):
        return torch.full((3, 64, 64), 0.2 * index)

    def mask(self, index):
        mask = torch.zeros(64, 64, dtype=torch.int64)
        if index != 1:
            mask[8:40, 8:40] = 1
        if index == 2:
            mask[50:54, 50:54] = 1
        return mask


@pytest.fixture(scope="module")
def sam():
    return FrozenSam(tiny_sam(64))


def test_sam_in_its_own_place_has_no_error_and_its_own_masks(sam):
    tests = {"both": largest_objects(Three(), 5)}
    images, targets = tests["both"]
    embedding = sam.encode(images)
    scores = encoder_scores(sam.encode, tests, sam)["both"]
    masks = masks_by_prompt(sam, embedding, targets)
    assert scores["MSE"] == 0
    for prompt in ("box", "click"):
        ious = mask_ious(masks[prompt], targets)
        assert scores[f"IoU, {prompt}"] == pytest.approx(sum(ious) / 2)


def test_masks_are_those_of_the_embedding_that_is_given(sam):
    images, targets = largest_objects(Three(), 5)
    embedding = sam.encode(images)
    swapped = masks_by_prompt(sam, embedding.flip(0), targets)
    # Both objects lie in one place, so the prompts agree and only the embeddings are swapped.
    for prompt, masks in masks_by_prompt(sam, embedding, targets).items():
        assert torch.equal(swapped[prompt], masks.flip(0))
        assert not torch.equal(masks[0], masks[1])


def test_error_of_a_constant_shift_is_its_square(sam):
    tests = {"both": largest_objects(Three(), 5)}
    scores = encoder_scores(lambda images: sam.encode(images) + 0.3, tests, sam)
    assert scores["both"]["MSE"] == pytest.approx(0.09, rel=1e-4)
