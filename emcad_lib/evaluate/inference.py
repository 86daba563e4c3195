"""From slices to probabilities, and from a scan to a segmentation, on the grid that they came on.

A network that was trained on slices of 96 pixels has learnt how large things look at 2 mm per pixel. So slices are
brought to that pixel size first, and what comes out is brought back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emcad_lib.data.brats import Scan
from emcad_lib.data.labels import REGIONS
from emcad_lib.data.planes import PLANES, as_axial, recut
from emcad_lib.data.planes import pixel_mm as pixels_of
from emcad_lib.data.preprocess import dequantise, prepare_patient
from emcad_lib.evaluate.canvas import Canvas
from emcad_lib.evaluate.fold import folded
from emcad_lib.evaluate.known import channels as channels_of
from emcad_lib.evaluate.known import image_size as image_size_of
from emcad_lib.evaluate.known import known_regions, names
from emcad_lib.evaluate.known import neighbours as neighbours_of
from emcad_lib.evaluate.refine import adapted, without_crumbs
from emcad_lib.files import CourseError
from emcad_lib.progress import progress

# A voxel of a region belongs to every region round it: see labels.py.
_BITS = {"whole": 0b001, "core": 0b011, "enhancing": 0b111}

ADAPT_SLICES, ADAPT_BATCH = 48, 16  # so many slices of a patient tell its statistics well enough


def predict(
    model: nn.Module,
    images: NDArray[np.generic] | Tensor,
    image_size: int | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    flip: bool = False,
    show: bool = False,
    modalities: Sequence[str] | None = None,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    adapt: float = 0.0,
    only: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """How likely does each pixel belong to each region?

    Each slice is centred on the canvas that the network was trained on, or on a larger one if it doesn't fit: training
    may cut a large brain, a prediction doesn't. The canvas is resampled to the pixel size of the training, with sides
    that are multiples of 32, and the probabilities are resampled back.

    Args:
        model: gives logits (B, R, H, W), or a list of them with the prediction last. Its mode, training or not, is
            left as it was.
        images: slices (S, C, H, W) of any height and width: float z-scores with 0 outside the brain, or uint8 as in
            the cache. Four channels are all of MODALITIES in their order, of which the model's own are picked; any
            other number is taken as what the model wants.
        image_size: pixels along the side of the training slices; by default as the model's metadata say.
        batch_size: slices at a time. It doesn't change the result.
        device: where to compute. The model is moved there. By default, where the model is.
        flip: average with the prediction of the mirrored slice, its columns swapped: left and right or, in a sagittal
            slice, front and back. Takes twice as long.
        show: show a progress bar.
        modalities: which of the four channels to use; by default as the model's metadata say.
        pixel_mm: millimetres per pixel of ``images``, down and across.
        adapt: how far batch normalisation follows these slices instead of the training's: see :func:`adapted`.
        only: the numbers of the slices to look at; by default all. A network that sees neighbouring slices as well
            needs ``images`` to be in order.

    Returns:
        Probabilities (S, R, H, W), of all slices or of ``only`` some, on the pixel grid of ``images``.

    Raises:
        CourseError: neither the arguments nor the metadata say what is needed; the network gives NaN.
        ValueError: ``images`` are no slices, or don't have the channels that the network takes.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images are (slices, channels, height, width), one at least, not {tuple(images.shape)}.")
    near = neighbours_of(model)
    channels = channels_of(model, images.shape[1], modalities)
    count, steps = images.shape[0], np.arange(-near, near + 1)
    numbers = np.arange(count) if only is None else np.asarray(only)
    canvas = Canvas.of((images.shape[2], images.shape[3]), pixel_mm, image_size_of(model, image_size))
    if device is not None:
        model.to(device)
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def on_canvas(shown: NDArray[np.int64]) -> Tensor:
        stacks = np.clip(shown[:, None] + steps, 0, count - 1)  # (B, T): each with its neighbours
        x = torch.as_tensor(images[stacks][:, :, channels], device=home).flatten(1, 2)  # (B, T * C, H, W)
        return canvas.put(dequantise(x) if x.dtype == torch.uint8 else x.float())  # (B, T * C, N, M)

    if adapt:
        # Spread over the whole head, in every batch. A lone slice counts twice: one number has no variance.
        places = np.linspace(0, len(numbers) - 1, min(max(len(numbers), 2), ADAPT_SLICES))
        sample = numbers[places.round().astype(np.int64)]
        batches = max(len(sample) // ADAPT_BATCH, 1)
        model = adapted(model, (on_canvas(sample[first::batches]) for first in range(batches)), adapt)
    model = folded(model)
    starts = range(0, len(numbers), batch_size)
    parts = []
    with _predicting(model):
        for start in progress(starts, "segment", unit="batch") if show else starts:
            x = on_canvas(numbers[start : start + batch_size])
            probability = _probability(model, x)  # (B, R, N, M)
            if flip:
                probability = (probability + _probability(model, x.flip(-1)).flip(-1)) / 2
            parts.append(canvas.take(probability).cpu())  # (B, R, H, W)
    probabilities: NDArray[np.float32] = torch.cat(parts).numpy()
    if not np.isfinite(probabilities).all():
        raise CourseError("The network gives NaN: take other weights, or train again with a smaller --learning-rate.")
    return probabilities


def predict_planes(
    model: nn.Module,
    images: NDArray[np.generic],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    planes: Sequence[str] | None = None,
    every: int = 1,
    **settings: Any,
) -> NDArray[np.float32]:
    """The mean of what :func:`predict` gives for the same head cut in several planes.

    Something harmless is taken for tumour less often when it's also looked at from two other sides.

    Args:
        model: trained on slices in these planes.
        images: all axial slices of a head (S, C, H, W), from the lowest to the highest.
        spacing: of the voxels, in mm along I, J and K (left, back and up).
        planes: of PLANES; by default those that the model's metadata name, else axial.
        every: in the planes beside the first, look at every so many slices and the last only, and interpolate.
        settings: as :func:`predict` takes them.

    Returns:
        Probabilities (S, R, H, W).

    Raises:
        CourseError: an unknown plane, ``every`` below 1, or as in :func:`predict`.
    """
    if every < 1:
        raise CourseError(f"every must be 1 for each slice, 2 for every second and so on, not {every}.")
    if planes is None:
        planes = names(model, "planes", None, PLANES) if "planes" in getattr(model, "metadata", {}) else ["axial"]
    chosen = names(model, "planes", planes, PLANES)
    found = []
    for plane in chosen:
        slices = recut(images, plane)
        last = len(slices) - 1
        shown = np.array([*range(0, last, 1 if plane == chosen[0] else every), last])
        probabilities = predict(model, slices, pixel_mm=pixels_of(spacing, plane), only=shown, **settings)
        found.append(as_axial(_between(probabilities, shown, len(slices)), plane))
    mean: NDArray[np.float32] = np.mean(found, axis=0, dtype=np.float32)
    return mean


def _between(found: NDArray[np.float32], shown: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Maps of all ``count`` slices from those of the slices ``shown``, the first and the last of all among them."""
    if len(shown) == count:
        return found
    place = np.interp(np.arange(count), shown, np.arange(len(shown)))  # 1.5 is halfway between shown[1] and shown[2]
    before = np.minimum(place.astype(np.int64), len(shown) - 2)
    share = (place - before).astype(np.float32).reshape(-1, *[1] * (found.ndim - 1))
    return found[before] * (1 - share) + found[before + 1] * share


def segment_scan(
    model: nn.Module,
    scan: Scan,
    threshold: float = 0.5,
    image_size: int | None = None,
    modalities: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    flip: bool = False,
    show: bool = False,
    adapt: float = 0.0,
    crumbs: float = 0.0,
    planes: Sequence[str] | None = None,
    every: int = 1,
) -> NDArray[np.uint8]:
    """Where in a scan is the tumour?

    A voxel of the brain belongs to a region when its probability is above ``threshold``, and then to every region
    round it as well: an enhancing voxel is core and whole tumour too.

    Args:
        model: see :func:`predict`, as for the arguments that aren't named here.
        scan: a patient's scan, with or without a segmentation.
        threshold: between 0 and 1.
        regions: what the model's outputs mean, of REGIONS; by default as the model's metadata say.
        planes, every: as in :func:`predict_planes`.
        crumbs: drop pieces of a region that are smaller than this share of its largest piece.

    Returns:
        Region bits (I, J, K) on the scan's grid, 0 outside the brain; bit 0 only from a model of the whole tumour.

    Raises:
        CourseError: no such threshold; regions unknown, or not as many as the model's outputs; a share that isn't
            between 0 and 1; as in :func:`predict_planes`.
        FlatImage: a modality of the scan has no contrast.
    """
    if not 0 < threshold < 1:
        raise CourseError(f"The threshold is a probability: choose one above 0 and below 1, not {threshold:g}.")
    regions = known_regions(model) if regions is None else names(model, "regions", regions, REGIONS)
    prepared = prepare_patient(scan)
    shared: dict[str, Any] = {"image_size": image_size, "batch_size": batch_size, "device": device, "flip": flip}
    shared |= {"show": show, "modalities": modalities, "adapt": adapt}
    probabilities = predict_planes(model, prepared.images, scan.spacing, planes, every, **shared)
    if probabilities.shape[1] != len(regions):
        raise CourseError(
            f"The model gives {probabilities.shape[1]} maps, but {len(regions)} regions are named. Name one for "
            f"each map, in their order, with regions=[...], or none if the weights say what they are."
        )
    brain = prepared.images.any(axis=1)  # (S, H, W); no tumour outside of it
    masks = {region: (probabilities[:, index] > threshold) & brain for index, region in enumerate(regions)}
    outermost_first = [region for region in REGIONS if region in masks]
    for outer, inner in reversed(list(pairwise(outermost_first))):
        masks[outer] |= masks[inner]
    found, room = np.zeros_like(prepared.images[:, 0]), brain
    for region in outermost_first:
        room = without_crumbs(masks[region] & room, crumbs)  # what was a crumb of the whole is none of its core either
        found[room] |= _BITS[region]
    return prepared.restore(found, scan.images.shape[1:]).astype(np.uint8, copy=False)


@contextmanager
def _predicting(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is back in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _probability(model: nn.Module, x: Tensor) -> Tensor:
    logits = model(x)
    return torch.sigmoid(logits[-1] if isinstance(logits, list | tuple) else logits)
