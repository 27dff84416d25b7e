import pytest
import torch

from lib.data.patch_exchange import exchange_patches


def pair(count=2, size=8):
    """Labelled images are 0 with mask 1, unlabelled ones 1 with pseudo label 2."""
    image, mask = torch.zeros(count, 3, size, size), torch.ones(count, size, size).long()
    return (image, mask), (image + 1, mask + 1)


def uncertain_at(*places, size=8):
    """Uncertainty 1 in these patches (row, column) of a 4 x 4 grid, 0 elsewhere."""
    found = torch.zeros(1, 1, size, size)
    side = size // 4
    for rank, (row, column) in enumerate(places):
        patch = found[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
        patch += 1 + rank
    return found


def patches_of(swapped):
    """The 4 x 4 grid of a pattern that is constant within patches."""
    side = len(swapped) // 4
    grid = swapped[::side, ::side]
    assert torch.equal(grid.repeat_interleave(side, 0).repeat_interleave(side, 1), swapped)
    return {tuple(place) for place in grid.nonzero().tolist()}


def test_each_image_gives_up_its_most_uncertain_patches():
    labelled, unlabelled = pair(count=1)
    mine, theirs = [(0, 0), (1, 2)], [(3, 3), (1, 2)]
    mixed = exchange_patches(
        labelled, unlabelled, (uncertain_at(*mine), uncertain_at(*theirs)), patches=2
    )
    assert [patches_of(s) for s in mixed.swapped] == [set(mine), set(theirs)]
    for i, (own_image, own_mask) in enumerate([(0.0, 1), (1.0, 2)]):
        swapped = mixed.swapped[i]
        assert (mixed.image[i][:, ~swapped] == own_image).all()
        assert (mixed.image[i][:, swapped] == 1 - own_image).all()
        assert (mixed.mask[i][~swapped] == own_mask).all()
        assert (mixed.mask[i][swapped] == 3 - own_mask).all()
    assert mixed.mask.dtype == torch.int64


def test_patches_are_ranked_by_their_mean_and_partners_are_those_of_equal_number():
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, 8, 16)
    images = [torch.rand(shape, generator=generator) for _ in range(2)]
    masks = [torch.randint(0, 4, (3, 8, 16), generator=generator) for _ in range(2)]
    uncertainty = [torch.rand(3, 1, 8, 16, generator=generator) for _ in range(2)]
    sides = list(zip(images, masks, strict=True))
    mixed = exchange_patches(*sides, uncertainty, patches=5)
    for side in (0, 1):
        for i in range(3):
            means = uncertainty[side][i, 0].reshape(4, 2, 4, 4).mean(dim=(1, 3))
            expected_image, expected_mask = images[side][i].clone(), masks[side][i].clone()
            for place in means.flatten().argsort(descending=True)[:5].tolist():
                row, column = divmod(place, 4)
                at = slice(2 * row, 2 * row + 2), slice(4 * column, 4 * column + 4)
                expected_image[:, *at] = images[1 - side][i][:, *at]
                expected_mask[at] = masks[1 - side][i][at]
            assert torch.equal(mixed.image[3 * side + i], expected_image)
            assert torch.equal(mixed.mask[3 * side + i], expected_mask)


def test_released_code_gives_up_the_surest_patches():
    labelled, unlabelled = pair(count=1)
    sure = {(0, 0), (1, 2), (2, 1)}
    rest = [(r, c) for r in range(4) for c in range(4) if (r, c) not in sure]
    uncertainty = (uncertain_at(*rest), uncertain_at(*rest))
    mixed = exchange_patches(labelled, unlabelled, uncertainty, patches=3, highest=False)
    assert patches_of(mixed.swapped[0]) == sure


def test_no_patch_leaves_all_as_it_was_and_all_patches_swap_whole_images():
    labelled, unlabelled = pair()
    uncertainty = (torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8))
    none = exchange_patches(labelled, unlabelled, uncertainty, patches=0)
    every = exchange_patches(labelled, unlabelled, uncertainty, patches=16)
    assert torch.equal(none.image, torch.cat([labelled[0], unlabelled[0]]))
    assert torch.equal(every.image, torch.cat([unlabelled[0], labelled[0]]))
    assert torch.equal(every.mask, torch.cat([unlabelled[1], labelled[1]]))


def test_wrong_input_is_named():
    labelled, unlabelled = pair()
    uncertainty = (torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images must be .* pairs are exchanged one to one"):
        exchange_patches(labelled, (unlabelled[0][:1], unlabelled[1]), uncertainty)
    with pytest.raises(ValueError, match="uncertainty must be"):
        exchange_patches(labelled, unlabelled, (uncertainty[0], uncertainty[1][:, 0]))
    with pytest.raises(ValueError, match="images of 8 x 8 do not divide into grid=3"):
        exchange_patches(labelled, unlabelled, uncertainty, grid=3)
    with pytest.raises(ValueError, match=r"patches must be 0 to 16 \(grid=4\), not 17"):
        exchange_patches(labelled, unlabelled, uncertainty, patches=17)
