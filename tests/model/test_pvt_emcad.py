"""The whole network: what it takes, what it gives, what it counts."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import create_model


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("encoder", "backbone", "decoder", "whole"),
    [("pvt_v2_b0", 3_409_760, 506_507, 3_916_795), ("pvt_v2_b2", 24_849_856, 1_913_515, 26_764_411)],
)
def test_the_parameters_are_those_of_the_published_network(encoder, backbone, decoder, whole):
    model = create_model(encoder, in_channels=1)
    assert (count(model.encoder), count(model.decoder), count(model)) == (backbone, decoder, whole)
    assert count(model.lift) == 12
    assert count(create_model(encoder)) == whole - 12


@pytest.mark.parametrize(("encoder", "decoder"), [("pvt_v2_b0", 555_659), ("pvt_v2_b2", 2_011_819)])
def test_kernels_3_5_7_cost_more_than_the_published_count(encoder, decoder):
    assert count(create_model(encoder, kernel_sizes=(3, 5, 7)).decoder) == decoder


@pytest.mark.parametrize("in_channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_four_maps_come_out_coarse_to_fine_at_the_size_that_went_in(in_channels, num_classes):
    model = create_model(in_channels=in_channels, num_classes=num_classes).eval()
    maps = model(torch.randn(2, in_channels, 64, 96))
    assert [tuple(p.shape) for p in maps] == [(2, num_classes, 64, 96)] * 4
    # p4 is enlarged 32 times and p1 4 times, so p1 can change faster from pixel to pixel.
    roughness = [p.diff(n=2, dim=-1).abs().mean() / p.std() for p in maps]
    assert roughness[0] < roughness[3]


# In training, batch normalisation takes away what a bias right before it adds: its gradient is rounding, or nothing.
IDLE_IN_TRAINING = re.compile(r"lgag\d\.(judge_decoder|judge_skip|agree)\.0\.bias|lift\.0\.bias")


@pytest.mark.parametrize("in_channels", [1, 3, 4])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(in_channels, training):
    model = create_model(in_channels=in_channels).train(training)

    sum(p.square().mean() for p in model(torch.randn(2, in_channels, 64, 64))).backward()

    parameters = dict(model.named_parameters())
    assert [name for name, parameter in parameters.items() if parameter.grad is None] == []
    without = [name for name, parameter in parameters.items() if not parameter.grad.any()]
    assert [name for name in without if not (training and IDLE_IN_TRAINING.search(name))] == []


def test_the_decoder_joins_encoder_and_upsampled_features_as_the_paper_draws_it():
    model = create_model().eval()
    x1, x2, x3, x4 = model.encoder(torch.randn(1, 3, 64, 64))
    d = model.decoder
    d4 = d.mscam4(x4)
    u3 = d.eucb3(d4)
    d3 = d.mscam3(u3 + d.lgag3(u3, x3))
    u2 = d.eucb2(d3)
    d2 = d.mscam2(u2 + d.lgag2(u2, x2))
    u1 = d.eucb1(d2)
    d1 = d.mscam1(u1 + d.lgag1(u1, x1))
    for ours, expected in zip(d([x1, x2, x3, x4]), [d4, d3, d2, d1], strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_last_map_is_the_enlarged_last_head():
    model = create_model().eval()
    x = torch.randn(1, 3, 64, 64)
    head = model.heads[3](model.decoder(model.encoder(x))[3])
    torch.testing.assert_close(model(x)[3], F.interpolate(head, scale_factor=4, mode="bilinear", align_corners=False))


def test_all_four_stages_look_through_one_sab_and_safetensors_can_save_it(tmp_path):
    model = create_model()
    assert [key for key in model.state_dict() if "sab" in key] == ["decoder.sab.conv.weight"]
    save_file(model.state_dict(), tmp_path / "aliases.safetensors")
    calls: list[int] = []
    model.decoder.sab.register_forward_hook(lambda *_: calls.append(1))
    model.eval()(torch.randn(1, 3, 32, 32))
    assert len(calls) == 4


def test_decoder_starts_small_and_neutral_and_heads_keep_pytorchs_own_start():
    torch.manual_seed(0)
    model = create_model()
    wide = model.decoder.mscam4.mscb.widen[0].weight
    assert abs(wide.std().item() - 0.02) < 0.001
    assert model.decoder.eucb3.pointwise.bias.abs().max() == 0
    assert model.heads[0].bias.abs().max() > 0


@pytest.mark.parametrize(("shape", "says"), [((1, 3, 240, 240), "256 x 256"), ((1, 4, 64, 64), "in_channels")])
def test_a_shape_that_cannot_work_is_refused_with_one_that_can(shape, says):
    with pytest.raises(ValueError, match=says):
        create_model()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "pvt_v2_b9"}, "pvt_v2_b0"),
        ({"encoder": "vit_tiny_patch16_224"}, "strides"),
        ({"kernel_sizes": (2, 4)}, "odd"),
        ({"kernel_sizes": ()}, "odd"),
        ({"activation": "swish"}, "relu6"),
        ({"num_classes": 0}, "1 or more"),
    ],
)
def test_a_setting_that_cannot_be_built_is_refused_with_a_way_out(options, says):
    with pytest.raises(CourseError, match=says):
        create_model(**options)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_any_timm_encoder_with_the_right_strides_will_do(encoder):
    model = create_model(encoder).eval()
    assert [p.shape[-1] for p in model(torch.randn(1, 3, 224, 224))] == [224] * 4


def test_without_the_download_the_message_says_so_and_names_the_way_out(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no connection")
        return create(*args, **kwargs)

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(CourseError, match=r"could not be downloaded \(no connection\).*load_encoder"):
        create_model(pretrained=True)
