"""Random variation of training slices: what it may change, and what it must leave alone."""

import pytest
import torch
import torch.nn.functional as F

from emcad_lib.data import augment as module
from emcad_lib.data.slices import augment

STEPS = [module.tone, module.contrast, module.shade, module.blur, module.noise]  # they change greys, not places


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(slices=6, channels=3, regions=1, size=64):
    """Noise in a disc, 0 around it; and in the disc, right of the middle, a smaller disc of brighter "tumour"."""
    rows, columns = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * 2, indexing="ij")
    brain = rows**2 + columns**2 < (0.4 * size) ** 2
    tumour = rows**2 + (columns - 0.15 * size) ** 2 < (0.12 * size) ** 2
    x = torch.randn(slices, channels, size, size, generator=seeded(9)) * 0.3 + 3 * tumour
    return torch.where(brain, x, 0.0), tumour.float().expand(slices, regions, size, size).clone()


def largest_difference(a, b):
    return (a - b).abs().max().item()


def test_the_same_seed_gives_the_same_variation_and_another_seed_another():
    x, y = batch()

    first, again, other = (augment(x, y, seeded(seed)) for seed in (1, 1, 2))

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert largest_difference(first[0], other[0]) > 0.1


def test_a_generator_goes_on_from_batch_to_batch():
    x, y = batch()
    generator = seeded(1)

    assert largest_difference(augment(x, y, generator)[0], augment(x, y, generator)[0]) > 0.1


def test_the_random_numbers_of_the_rest_of_the_program_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augment(*batch(), seeded(1))

    assert torch.equal(torch.rand(3), expected)


def test_the_batch_that_is_given_stays_as_it_is():
    x, y = batch()
    before = x.clone(), y.clone()

    augment(x, y, seeded(1))

    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize(("slices", "channels", "regions", "size"), [(1, 1, 1, 32), (2, 3, 3, 33), (5, 4, 2, 96)])
def test_any_number_of_slices_channels_regions_and_pixels_will_do(slices, channels, regions, size):
    x, y = batch(slices, channels, regions, size)

    new_x, new_y = augment(x, y, seeded(1))

    assert (new_x.shape, new_y.shape) == (x.shape, y.shape)
    assert new_x.dtype == new_y.dtype == torch.float32
    assert new_x.isfinite().all()
    assert set(new_y.unique().tolist()) == {0, 1}


def test_each_slice_is_varied_on_its_own():
    x, y = batch(slices=2)
    x[1] = x[0]

    new_x, new_y = augment(x, y, seeded(1))

    assert largest_difference(new_x[0], new_x[1]) > 0.1
    assert largest_difference(new_y[0], new_y[1]) > 0


@pytest.mark.parametrize("seed", range(10))
def test_outside_the_brain_it_stays_exactly_zero(seed):
    x, y = batch()
    moved, _ = module.move(*module.flip(x, y, generator := seeded(seed)), generator)

    new_x, _ = augment(x, y, seeded(seed))

    assert torch.equal(new_x != 0, moved != 0)
    assert 0.3 < (new_x != 0).float().mean() < 0.7  # the disc covers half of the picture


def test_an_empty_slice_stays_empty():
    x, y = augment(torch.zeros(3, 3, 32, 32), torch.zeros(3, 2, 32, 32), seeded(1))

    assert not x.any()
    assert not y.any()


@pytest.mark.parametrize("seed", range(10))
def test_the_tumour_in_the_mask_is_the_tumour_in_the_picture(seed):
    x, y = batch(slices=16)

    x, y = module.move(*module.flip(x, y, generator := seeded(seed)), generator)

    bright = (x.mean(dim=1, keepdim=True) > 1.5).float()
    overlap = 2 * (bright * y).sum(dim=(1, 2, 3)) / (bright + y).sum(dim=(1, 2, 3))
    assert overlap.min() > 0.9


def test_about_half_of_the_slices_are_mirrored_left_to_right_with_their_masks():
    x, y = batch(slices=400, size=16)

    new_x, new_y = module.flip(x, y, seeded(1))

    mirrored = torch.tensor([torch.equal(new, old.flip(-1)) for new, old in zip(new_x, x, strict=True)])
    as_it_was = torch.tensor([torch.equal(new, old) for new, old in zip(new_x, x, strict=True)])
    assert (mirrored ^ as_it_was).all()
    assert 160 < mirrored.sum() < 240  # 200 expected, with a standard deviation of 10
    assert torch.equal(new_y[mirrored], y[mirrored].flip(-1))
    assert torch.equal(new_y[as_it_was], y[as_it_was])


def test_slices_are_turned_scaled_and_shifted_by_little_in_all_directions():
    size = 64
    y = torch.zeros(300, 1, size, size)
    y[:, :, 24:40, 16:48] = 1  # lies, 32 wide and 16 high, in the middle

    _, moved = module.move(torch.zeros(300, 1, size, size), y, seeded(1))

    weight = moved[:, 0] / moved.sum(dim=(1, 2, 3))[:, None, None]
    places = torch.arange(size) - 31.5
    row, column = (weight.sum(dim=2) * places).sum(dim=1), (weight.sum(dim=1) * places).sum(dim=1)
    rows, columns = places[None, :, None] - row[:, None, None], places[None, None, :] - column[:, None, None]
    covariance, across, down = ((weight * part).sum(dim=(1, 2)) for part in (rows * columns, columns**2, rows**2))
    angle = 0.5 * torch.atan2(2 * covariance, across - down)
    scale = (moved.sum(dim=(1, 2, 3)) / y.sum(dim=(1, 2, 3))).sqrt().log()
    for measured, spread in ((angle, 0.25), (scale, 0.12), (row, 0.025 * size), (column, 0.025 * size)):
        assert measured.std().item() == pytest.approx(spread, rel=0.15)
        assert abs(measured.mean().item()) < 0.2 * spread


@pytest.mark.parametrize("step", STEPS)
def test_each_step_does_something_and_only_to_the_greys(step):
    x, _ = batch(slices=20)

    changed = step(x, seeded(1))

    assert changed.shape == x.shape
    assert largest_difference(changed, x) > 0.05
    for old, new in zip(x.flatten(0, 1), changed.flatten(0, 1), strict=True):
        coarse = torch.stack([F.avg_pool2d(picture[None], 8).flatten() for picture in (old, new)])
        assert torch.corrcoef(coarse)[0, 1] > 0.8  # bright stays bright, and where it was


def test_bending_the_tones_keeps_dark_dark_and_bright_bright_in_each_channel():
    ramp = torch.linspace(-3, 5, 161).expand(50, 3, 1, 161)

    bent = module.tone(ramp, seeded(1))

    assert (bent.diff(dim=-1) > 0)[..., 1:].all()  # rising everywhere, also beyond the upper end
    assert torch.allclose(bent[..., 140], torch.tensor(4.0), atol=1e-4)  # z = 4 stays where it is
    middle = bent[..., 60]  # z = 0
    assert middle.min() < -0.5
    assert middle.max() > 0.5
    assert (middle[:, 0] - middle[:, 1]).abs().max() > 0.5


def test_contrast_is_a_line_for_each_channel():
    ramp = torch.linspace(-2, 2, 5).expand(200, 2, 1, 5)

    lines = module.contrast(ramp, seeded(1))[:, :, 0]

    assert torch.allclose(lines.diff(dim=-1, n=2), torch.zeros(()), atol=1e-5)
    slope, offset = lines[..., 3] - lines[..., 2], lines[..., 2]
    assert slope.log().std().item() == pytest.approx(0.25, rel=0.15)
    assert offset.std().item() == pytest.approx(0.3, rel=0.15)


def test_shading_is_smooth_and_differs_from_place_to_place():
    shading = module.shade(torch.zeros(50, 3, 96, 96), seeded(1))

    assert shading.diff(dim=-1).abs().max() < 0.1
    assert shading.diff(dim=-2).abs().max() < 0.1
    assert shading.std(dim=(2, 3)).mean() > 0.1


def test_about_three_slices_in_ten_are_blurred_over_their_neighbours():
    x = torch.zeros(500, 1, 9, 9)
    x[:, :, 4, 4] = 9.0

    blurred = module.blur(x, seeded(1))

    dot, square = x[0, 0], torch.zeros(9, 9)
    square[3:6, 3:6] = 1.0
    softened = torch.tensor([torch.allclose(picture[0], square) for picture in blurred])
    untouched = torch.tensor([torch.equal(picture[0], dot) for picture in blurred])
    assert (softened ^ untouched).all()
    assert 110 < softened.sum() < 190  # 150 expected, with a standard deviation of 10


def test_noise_has_no_bias_and_up_to_a_fifth_of_a_deviation():
    noise = module.noise(torch.zeros(200, 1, 64, 64), seeded(1))

    strength = noise.std(dim=(1, 2, 3))
    assert abs(noise.mean().item()) < 0.002
    assert strength.max() < 0.21
    assert strength.min() < 0.02
    assert strength.mean().item() == pytest.approx(0.1, rel=0.15)


def test_bending_moves_masks_with_their_pictures_smoothly_and_differently_in_each_slice():
    places = torch.arange(64.0).expand(2, 2, 64, 64).clone()  # each pixel says how far to the right it is
    places[:, 1] = places[:, 1].mT.clone()  # or how far down
    square = torch.zeros(2, 1, 64, 64)
    square[..., 20:44, 20:44] = 1

    x, y = module.elastic(places, square, seeded(3))

    bend = (x - places)[..., 8:-8, 8:-8]
    assert 0.5 < bend.abs().mean() < 4
    assert bend.diff(dim=-1).abs().max() < 1  # no folds
    assert largest_difference(bend[0], bend[1]) > 1
    inside = (x[:, :1] > 19.5) & (x[:, :1] < 43.5) & (x[:, 1:] > 19.5) & (x[:, 1:] < 43.5)
    assert (inside.float() != y).float().mean() < 0.01


@pytest.mark.parametrize("name", module.VARIATIONS)
def test_each_variation_can_be_chosen_alone_and_is_what_the_function_of_its_name_does(name):
    x, y = batch()

    given = augment(x, y, seeded(4), (name,))

    step = getattr(module, name)
    expected = step(x, y, seeded(4)) if name in ("flip", "move", "elastic") else (step(x, seeded(4)), y)
    brain = expected[0] != 0 if name in ("flip", "move", "elastic") else x != 0
    assert torch.equal(given[0], torch.where(brain, expected[0], 0.0))
    assert torch.equal(given[1], expected[1])
    assert largest_difference(given[0], x) > 0.01


def test_elastic_is_not_among_the_standard_variations_and_does_not_change_what_they_draw():
    x, y = batch()

    assert "elastic" not in module.STANDARD
    assert torch.equal(augment(x, y, seeded(1))[0], augment(x, y, seeded(1), module.STANDARD)[0])


@pytest.mark.parametrize("name", ["tone", "contrast", "shade"])
def test_a_modalitys_greys_change_alike_in_neighbouring_slices(name):
    one, y = batch(slices=3, channels=2)
    three = one.repeat(1, 3, 1, 1)

    varied, _ = augment(three, y, seeded(1), (name,), slices=3)

    below, itself, above = varied.chunk(3, dim=1)
    assert torch.equal(below, itself)
    assert torch.equal(itself, above)
    assert torch.equal(itself, augment(one, y, seeded(1), (name,))[0])
    assert largest_difference(itself[:, 0], itself[:, 1]) > 0.01
