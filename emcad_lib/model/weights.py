"""Weights in and out of files. The only place where keys are renamed.

Weights are stored as safetensors, which hold numbers and nothing that could run. What must be known to use a network
(its configuration, and what it was trained on) is stored in the same file, as text.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from timm.models import pvt_v2
from torch import Tensor

from emcad_lib.files import CourseError, replacing
from emcad_lib.model.others import create_network
from emcad_lib.model.pvt_emcad import PVTEMCAD, Network

_SHIPPED = Path(__file__).parents[1] / "weights"
REFERENCE_WEIGHTS = _SHIPPED / "pvt_emcad_b0.safetensors"
REGION_WEIGHTS = _SHIPPED / "pvt_emcad_b0_regions.safetensors"
SHIPPED = {"whole": REFERENCE_WEIGHTS, "regions": REGION_WEIGHTS}  # by what they segment

_OURS = "Give a file of this course's, such as best.safetensors of a training"
_IMAGENET = "Give the encoder's ImageNet weights from timm or PVT, .safetensors or .pth"

# Published names and ours, as beginnings of keys. Stage 4 is the coarsest, 1 the finest.
OFFICIAL_TO_COURSE = {
    "conv.": "lift.",
    "decoder.sab.": "decoder.sab.",
    **{f"out_head{stage}.": f"heads.{4 - stage}." for stage in (4, 3, 2, 1)},
}
for stage in (4, 3, 2, 1):
    OFFICIAL_TO_COURSE |= {
        f"decoder.cab{stage}.fc1.": f"decoder.mscam{stage}.cab.squeeze.",
        f"decoder.cab{stage}.fc2.": f"decoder.mscam{stage}.cab.expand.",
        f"decoder.mscb{stage}.0.pconv1.": f"decoder.mscam{stage}.mscb.widen.",
        f"decoder.mscb{stage}.0.msdc.dwconvs.": f"decoder.mscam{stage}.mscb.msdc.branches.",
        f"decoder.mscb{stage}.0.pconv2.": f"decoder.mscam{stage}.mscb.narrow.",
        f"decoder.eucb{stage}.up_dwc.1.": f"decoder.eucb{stage}.depthwise.0.",
        f"decoder.eucb{stage}.up_dwc.2.": f"decoder.eucb{stage}.depthwise.1.",
        f"decoder.eucb{stage}.pwc.0.": f"decoder.eucb{stage}.pointwise.",
        f"decoder.lgag{stage}.W_g.": f"decoder.lgag{stage}.judge_decoder.",
        f"decoder.lgag{stage}.W_x.": f"decoder.lgag{stage}.judge_skip.",
        f"decoder.lgag{stage}.psi.": f"decoder.lgag{stage}.agree.",
    }
# The encoder in timm's ``features_only`` layout, and in the original PVT layout that the published weights carry.
TIMM_TO_PVT = [
    (r"^encoder\.stages_(\d)\.blocks\.", lambda found: f"backbone.block{int(found[1]) + 1}."),
    (r"^encoder\.stages_(\d)\.downsample\.", lambda found: f"backbone.patch_embed{int(found[1]) + 1}."),
    (r"^encoder\.stages_(\d)\.norm\.", lambda found: f"backbone.norm{int(found[1]) + 1}."),
    (r"^encoder\.patch_embed\.", lambda found: "backbone.patch_embed1."),
    (r"\.mlp\.dwconv\.", lambda found: ".mlp.dwconv.dwconv."),
]


def save_weights(model: Network, path: str | Path, half: bool = False, **metadata: str) -> None:
    """Write a network's weights and how to build it, as safetensors.

    Args:
        model: the network.
        path: the file to write, or to replace.
        half: store 16-bit numbers, which halves the file; loading gives 32-bit numbers back.
        metadata: what else to say in the file, beside ``model.metadata``: modalities, regions, image_size.
    """
    tensors = {
        key: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for key, tensor in model.state_dict().items()
    }
    metadata = {**model.metadata, **metadata, "config": json.dumps(asdict(model.config))}
    with replacing(path) as beside:
        # Not by save_file: its own temporary file would stay for good if the process is killed.
        beside.write_bytes(save(tensors, metadata))


def load_weights(path: str | Path | None = None) -> Network:
    """Build the network that a weights file describes, ready to predict (in evaluation mode).

    Args:
        path: a file of `save_weights`, or the name of weights that the course ships: "whole" for the whole tumour,
            which is the default, "regions" for whole tumour, core and enhancing tumour.

    Raises:
        CourseError: when the file is missing, is not such a file, or does not fit the network that it describes.
    """
    path = weights_file(path)
    _check_file(path, f"{_OURS}, or one of the words {' and '.join(SHIPPED)}")
    metadata, state = _read_safetensors(path, _OURS)
    try:
        config = json.loads(metadata["config"])
        model = create_network(**config)
    except CourseError as error:
        raise CourseError(f"{path}: the network of these weights can't be built. {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CourseError(
            f"{path}: the file doesn't say which network its weights belong to. {_OURS}; published EMCAD weights go "
            f"through emcad_lib.load_official."
        ) from error
    state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    _check_fit(model, model.state_dict(), state, str(path), "Fetch the file again, or write it anew with save_weights")
    model.load_state_dict(state)
    model.metadata = {key: value for key, value in metadata.items() if key != "config"}
    return model.eval()


def weights_file(path: str | Path | None = None) -> Path:
    """The file of weights that a path, or the name of shipped ones, stands for: see `load_weights`."""
    return SHIPPED.get(str(path or "whole"), Path(path or ""))


def load_official(model: PVTEMCAD, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that carry the published EMCAD names, strictly.

    The encoder's part (``backbone.``, in the original PVT layout) may be absent as a whole; then the encoder stays as
    it is, with a warning. The published network always carries a convolution for one-channel input (``conv.``); a
    network that takes more channels has no use for it and leaves it out.

    Raises:
        CourseError: naming every missing, unknown and misshapen key. The network is then unchanged.
    """
    state = dict(state_dict)
    if model.config.in_channels != 1:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("conv.")}
    published = official_state_dict(model)
    if not any(key.startswith("backbone.") for key in state):
        warnings.warn("The weights hold no encoder (no backbone. keys): the encoder stays as it is.", stacklevel=2)
        state |= {key: tensor for key, tensor in published.items() if key.startswith("backbone.")}
    remedy = "Build the network that the weights are of (create_model), or take others"
    _check_fit(model, published, state, "The published layout", remedy)
    model.load_state_dict({key: state[_official_name(key)] for key in model.state_dict()})


def official_state_dict(model: PVTEMCAD) -> dict[str, Tensor]:
    """The network's weights under the published EMCAD names."""
    return {_official_name(key): tensor for key, tensor in model.state_dict().items()}


def load_encoder(model: PVTEMCAD, path: str | Path) -> None:
    """Load the encoder's ImageNet weights from a local file: timm's or PVT's own, .safetensors or .pth.

    Raises:
        CourseError: when the file can't be read, or does not fit the encoder.
    """
    path = Path(path)
    _check_file(path, _IMAGENET)
    if path.suffix == ".safetensors":
        _, weights = _read_safetensors(path, _IMAGENET)
    else:
        try:
            weights = dict(torch.load(path, map_location="cpu", weights_only=True))  # refuses anything but numbers
        except Exception as error:
            raise CourseError(
                f"{path}: this is not a file of weights that can be read safely ({type(error).__name__}). {_IMAGENET}."
            ) from error
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("encoder.")}
    state |= {f"encoder.{key}": tensor for key, tensor in _timm_features(weights, model).items()}
    remedy = f"Take weights of the encoder {model.config.encoder}, or build the network on the encoder of these"
    _check_fit(model, model.state_dict(), state, str(path), remedy)
    model.load_state_dict(state)


def _official_name(key: str) -> str:
    """The published name of one of our keys."""
    for official, course in OFFICIAL_TO_COURSE.items():
        if key.startswith(course):
            return official + key.removeprefix(course)
    for pattern, replacement in TIMM_TO_PVT:
        key = re.sub(pattern, replacement, key)
    return key


def _timm_features(weights: Mapping[str, Tensor], model: PVTEMCAD) -> dict[str, Tensor]:
    """Encoder weights in PVT's or timm's layout, under the names of timm's ``features_only`` encoder."""
    if any(key.startswith(("patch_embed1.", "block1.")) for key in weights):
        weights = pvt_v2.checkpoint_filter_fn(dict(weights), model.encoder)
    expected = model.encoder.state_dict()
    features = {}
    for key, tensor in weights.items():
        if key.startswith("head."):  # the ImageNet classifier
            continue
        flattened = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)  # features_only turns stages.0 into stages_0
        features[flattened if flattened in expected else key] = tensor
    return features


def _check_file(path: Path, remedy: str) -> None:
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "there is no such file of weights"
        raise CourseError(f"{path}: {what}. {remedy}.")


def _read_safetensors(path: Path, remedy: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata, load_file(path)
    except (SafetensorError, OSError) as error:
        raise CourseError(
            f"{path}: this can't be read as a safetensors file ({error}). If it's cut short, fetch it again. {remedy}."
        ) from error


def _check_fit(
    model: Network, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, remedy: str
) -> None:
    """Raise an error that names every key and shape of ``state`` that isn't as expected, and the remedy."""
    faults = [f"missing: {key}" for key in expected if key not in state]
    faults += [f"unknown: {key}" for key in state if key not in expected]
    faults += [
        f"misshapen: {key} is {tuple(state[key].shape)}, should be {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise CourseError(
            f"{source} does not fit this network (encoder {model.config.encoder}, kernels "
            f"{model.config.kernel_sizes}). {remedy}:\n  " + "\n  ".join(faults[:20]) + more
        )
