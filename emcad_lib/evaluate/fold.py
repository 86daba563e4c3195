"""The same network with less to do, for when it only predicts."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emcad_lib.model.pvt_emcad import PVTEMCAD


def folded(model: nn.Module) -> nn.Module:
    """A copy of a PVT-EMCAD for prediction: its logits are the same but for rounding. Any other model comes back as is.

    In use, batch normalisation multiplies and adds constants, which the weights of the convolution before it can take
    over. And the copy keeps the channels of a pixel side by side in memory, as the encoder's layers want them: in the
    usual order, they are sorted anew before and after each of its convolutions.

    Returns:
        The copy, in evaluation mode, on the device of ``model``.
    """
    if not isinstance(model, PVTEMCAD):
        return model  # what a stranger's layers make of another order in memory, nobody knows
    model = copy.deepcopy(model).eval()
    for block in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for first, second in pairwise(list(block._modules)):
            convolution, norm = block._modules[first], block._modules[second]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
                block._modules[first] = fuse_conv_bn_eval(convolution, norm)
                block._modules[second] = nn.Identity()
    return model.to(memory_format=torch.channels_last)
