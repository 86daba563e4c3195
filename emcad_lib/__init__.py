"""The library behind the EMCAD course: brain tumours segmented with PVTv2 and EMCAD. One room per step of the way."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcad_lib.model.pvt_emcad import create_model
    from emcad_lib.model.weights import load_encoder, load_official, load_weights, save_weights

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "load_encoder", "load_official", "load_weights", "save_weights"]

# Before torch is imported. Its threads wait for each other hundreds of times per slice; by default they do so without
# giving their processor away, and on a machine that does something else besides, training then slows down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_ROOMS = {
    "create_model": "emcad_lib.model.pvt_emcad",
    "load_encoder": "emcad_lib.model.weights",
    "load_official": "emcad_lib.model.weights",
    "load_weights": "emcad_lib.model.weights",
    "save_weights": "emcad_lib.model.weights",
}


def __getattr__(name: str) -> Any:
    # Looked up when first used: making phantoms or preparing patients shouldn't wait for timm to be imported.
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)
