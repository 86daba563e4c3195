"""Networks that stand in EMCAD's place: shapes, sizes, names, and weights that go to disk and back."""

import sys

import pytest
import torch

from emcad_lib.files import CourseError
from emcad_lib.model.others import NETWORKS, create_network
from emcad_lib.model.pvt_emcad import PVTEMCAD
from emcad_lib.model.weights import load_weights, save_weights

OTHERS = [name for name in NETWORKS if name != "emcad"]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("channels", "classes"), [(3, 1), (4, 3)])
def test_a_network_gives_one_map_of_the_size_of_its_input_and_learns_with_every_weight(name, channels, classes):
    model = create_network(name, num_classes=classes, in_channels=channels)
    x = torch.randn(2, channels, 64, 96)

    (logits,) = model(x)
    logits.square().mean().backward()

    assert logits.shape == (2, classes, 64, 96)
    assert [key for key, weight in model.named_parameters() if weight.grad is None] == []


def test_emcad_is_emcad_with_all_its_settings():
    model = create_network("emcad", num_classes=2, kernel_sizes=(1, 3), dropout=0.5)

    assert isinstance(model, PVTEMCAD)
    assert (model.config.num_classes, model.config.kernel_sizes, model.config.dropout) == (2, (1, 3), 0.5)


def test_the_u_net_of_smp_has_the_encoder_that_emcad_has():
    emcad, unet = create_network("emcad"), create_network("smp_unet")

    def count(module):
        return sum(weight.numel() for weight in module.parameters())

    assert count(unet.network.encoder) == count(emcad.encoder)


@pytest.mark.parametrize("name", OTHERS)
def test_weights_go_to_disk_and_back(name, tmp_path):
    model = create_network(name, num_classes=2, in_channels=3, encoder="pvt_v2_b0").eval()
    x = torch.randn(1, 3, 64, 64)

    save_weights(model, tmp_path / "w.safetensors", image_size="64")
    loaded = load_weights(tmp_path / "w.safetensors")

    assert loaded.metadata == {"image_size": "64"}
    assert torch.equal(loaded(x)[-1], model(x)[-1])


def test_a_network_that_nobody_knows_is_named():
    with pytest.raises(CourseError, match="'vnet'.*attention_unet"):
        create_network("vnet")


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)

    with pytest.raises(CourseError, match="pip install segmentation-models-pytorch"):
        create_network("smp_unet")
