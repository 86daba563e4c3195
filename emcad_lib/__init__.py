"""The library behind the EMCAD course: brain tumours segmented with PVTv2 and EMCAD. One room per step of the way."""

from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.model.weights import load_encoder, load_official, load_weights, save_weights

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "load_encoder", "load_official", "load_weights", "save_weights"]
