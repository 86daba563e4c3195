"""The losses, against numbers worked out by hand and against plain loops."""

import math
from itertools import combinations

import pytest
import torch

from emcad_lib.train.losses import (
    boundary_loss,
    dice_loss,
    mutation_loss,
    segmentation_loss,
    signed_distance,
    subsets,
)


def plain_dice_loss(logits, target):
    """Slice by slice and region by region, in Python numbers."""
    losses = []
    for b in range(logits.shape[0]):
        for r in range(logits.shape[1]):
            p = [1 / (1 + math.exp(-z)) for z in logits[b, r].flatten().tolist()]
            y = target[b, r].flatten().tolist()
            overlap = sum(a * c for a, c in zip(p, y, strict=True))
            losses.append(1 - (2 * overlap + 1) / (sum(p) + sum(y) + 1))
    return sum(losses) / len(losses)


def plain_segmentation_loss(logits, target):
    p = 1 / (1 + torch.exp(-logits.double()))
    cross_entropy = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    return 0.3 * cross_entropy.item() + 0.7 * plain_dice_loss(logits, target)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 2, 5, 4, generator=generator) for _ in range(4)]


@pytest.fixture
def target():
    return (torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def test_dice_loss_of_four_undecided_pixels_with_one_of_tumour():
    logits = torch.zeros(1, 1, 2, 2)  # every probability is 1/2
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])

    # overlap 1/2, areas 2 and 1: 1 - (2 * 1/2 + 1) / (2 + 1 + 1) = 1/2
    assert dice_loss(logits, target).item() == pytest.approx(0.5)


def test_segmentation_loss_of_the_same_pixels():
    logits = torch.zeros(1, 1, 2, 2)
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])

    # every pixel costs ln 2 in cross-entropy: 0.3 * 0.693147 + 0.7 * 0.5
    assert segmentation_loss(logits, target).item() == pytest.approx(0.557944, abs=1e-6)


def test_mutation_loss_of_four_undecided_maps_is_fifteen_times_that():
    maps = [torch.zeros(1, 1, 2, 2)] * 4
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])

    assert mutation_loss(maps, target).item() == pytest.approx(15 * 0.557944, abs=1e-4)


def test_dice_loss_equals_a_loop_over_slices_and_regions(maps, target):
    assert dice_loss(maps[0], target).item() == pytest.approx(plain_dice_loss(maps[0], target), abs=1e-6)


def test_segmentation_loss_equals_its_formula(maps, target):
    assert segmentation_loss(maps[0], target).item() == pytest.approx(
        plain_segmentation_loss(maps[0], target), abs=1e-6
    )


def test_mutation_loss_equals_a_loop_over_the_fifteen_subsets(maps, target):
    chosen = [subset for size in (1, 2, 3, 4) for subset in combinations(maps, size)]
    expected = sum(plain_segmentation_loss(sum(subset), target) for subset in chosen)

    assert len(chosen) == 15
    assert mutation_loss(maps, target).item() == pytest.approx(expected, rel=1e-6)


def test_the_subsets_of_two_things():
    assert subsets(2).tolist() == [[1, 0], [0, 1], [1, 1]]


def test_a_perfect_prediction_costs_nothing_and_the_opposite_costs_everything_of_dice():
    target = torch.zeros(1, 1, 32, 32)
    target[..., :16] = 1

    assert dice_loss(200 * target - 100, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(100 - 200 * target, target).item() == pytest.approx(1 - 1 / 1025)


def test_a_slice_without_tumour_costs_nothing_when_nothing_is_found_there():
    empty = torch.zeros(1, 1, 32, 32)

    assert dice_loss(empty - 100, empty).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_halves():
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(4, 1, 8, 8, generator=generator) for _ in range(4)]
    target = torch.zeros(4, 1, 8, 8)
    target[0] = 1  # very unequal slices: a Dice of the whole batch would not split

    halves = [mutation_loss([p[half] for p in maps], target[half]) for half in (slice(0, 2), slice(2, 4))]

    assert mutation_loss(maps, target).item() == pytest.approx(sum(halves).item() / 2, rel=1e-6)


def test_the_regions_of_a_slice_count_equally_and_by_themselves():
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    target = (logits + torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5)) > 0).float()

    alone = [segmentation_loss(logits[:, r : r + 1], target[:, r : r + 1]).item() for r in range(3)]

    assert segmentation_loss(logits, target).item() == pytest.approx(sum(alone) / 3, rel=1e-6)


def test_every_map_gets_a_gradient_and_it_points_towards_the_target():
    maps = [torch.zeros(1, 1, 4, 4, requires_grad=True) for _ in range(4)]
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0] = 1

    mutation_loss(maps, target).backward()

    for logits in maps:
        assert (logits.grad[..., 0] < 0).all()  # a step against the gradient raises the tumour's column
        assert (logits.grad[..., 1:] > 0).all()


def by_autograd(maps, target):
    chosen = [subset for size in (1, 2, 3, 4) for subset in combinations(maps, size)]
    return sum(segmentation_loss(sum(subset), target) for subset in chosen)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_gradient_written_out_is_the_one_that_pytorch_finds(maps, target, scale):
    target[0] = 0  # a slice without tumour
    gradients = []
    for loss in (mutation_loss, by_autograd):
        leaves = [(scale * p).double().requires_grad_() for p in maps]
        (3 * loss(leaves, target.double())).backward()
        gradients.append(torch.stack([leaf.grad for leaf in leaves]))

    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_the_gradient_is_the_slope_of_the_loss(target):
    maps = [torch.randn(3, 2, 5, 4, dtype=torch.double, requires_grad=True) for _ in range(4)]

    assert torch.autograd.gradcheck(lambda *leaves: mutation_loss(leaves, target.double()), maps)


def test_no_more_than_the_four_maps_are_kept_for_the_gradient(maps, target):
    leaves = [p.requires_grad_() for p in maps]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = mutation_loss(leaves, target)
    loss.backward()

    assert sum(kept.values()) == 4 * target.numel()


def test_maps_of_16_bits_are_judged_in_32(maps, target):
    leaves = [p.bfloat16().requires_grad_() for p in maps]
    loss = mutation_loss(leaves, target)
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(mutation_loss([p.bfloat16().float() for p in maps], target).item(), rel=1e-6)
    assert leaves[0].grad.dtype == torch.bfloat16


def test_certain_and_right_maps_cost_next_to_nothing_in_cross_entropy():
    target = torch.zeros(1, 1, 64, 64)
    target[..., :20] = 1
    certain = 1000 * target - 500

    assert mutation_loss([certain] * 4, target).item() == pytest.approx(0, abs=1e-4)


def test_a_map_that_is_no_number_makes_the_loss_none():
    maps = [torch.zeros(1, 1, 4, 4) for _ in range(4)]
    maps[2][..., 1, 1] = math.nan

    assert math.isnan(mutation_loss(maps, torch.zeros(1, 1, 4, 4)).item())


def brute_distance(mask):
    """Of each pixel to the nearest pixel on the other side of the border, looking at every pair."""
    side = len(mask)
    inside = [(i, j) for i in range(side) for j in range(side) if mask[i, j]]
    outside = [(i, j) for i in range(side) for j in range(side) if not mask[i, j]]

    def nearest(place, others):
        return min(math.dist(place, other) for other in others)

    return [
        [-(nearest((i, j), outside) - 1) if mask[i, j] else nearest((i, j), inside) for j in range(side)]
        for i in range(side)
    ]


def test_the_signed_distance_is_that_of_looking_at_every_pair_of_pixels():
    mask = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    mask[0, 0] = False
    mask[1, 2, 2:7, 2:7] = True

    found = signed_distance(mask.float())

    assert not found[0, 0].any()
    for place in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        torch.testing.assert_close(found[place], torch.tensor(brute_distance(mask[place])) / 9)


def test_the_boundary_loss_is_worse_the_farther_away_a_pixel_is_wrong_and_lowest_for_the_truth():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4:8, 4:8] = 1

    def loss(marked):
        return boundary_loss(40 * (marked - 0.5), target).item()

    near, far = target.clone(), target.clone()
    near[..., 8, 5], far[..., 14, 5] = 1, 1

    assert loss(target) < loss(near) < loss(far)
    assert loss(far) - loss(target) == pytest.approx(7 / 16 / 256, rel=1e-4)
    assert loss(target) < loss(torch.zeros_like(target)) == pytest.approx(0, abs=1e-6)


def test_slices_without_tumour_do_not_count_in_the_boundary_loss_and_its_slope_is_the_distance():
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 3, 3] = 1
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)

    boundary_loss(logits, target).backward()

    assert not logits.grad[1].any()
    torch.testing.assert_close(logits.grad, signed_distance(target) / 4 / target.numel())
