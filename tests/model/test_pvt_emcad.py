"""The whole network: what it takes, what it gives, what it counts."""

import inspect
import re
from dataclasses import asdict

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import ModelConfig, create_model

LESSON = "PVTEMCAD isn't the network of notebooks/07_pvt_emcad.ipynb any more"


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


def test_every_convolution_of_the_decoder_starts_small_and_normal_and_every_normalisation_neutral():
    torch.manual_seed(0)
    decoder, odd, drawn = create_model().decoder, [], []
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Conv2d):
            drawn.append(module.weight.detach().flatten() / 0.02)
            noise = 5 / (2 * drawn[-1].numel()) ** 0.5  # five times what the spread of so few numbers strays
            if abs(drawn[-1].std().item() - 1) > noise or (module.bias is not None and module.bias.any()):
                odd.append(name)
        elif isinstance(module, nn.BatchNorm2d):
            neutral = [(module.weight, 1), (module.bias, 0), (module.running_mean, 0), (module.running_var, 1)]
            odd += [name] * any(bool((tensor != value).any()) for tensor, value in neutral)
    assert not odd, f"EMCAD, the decoder of notebooks/07_pvt_emcad.ipynb, starts otherwise than published in: {odd}"
    together = torch.cat(drawn)
    assert together.std().item() == pytest.approx(1, abs=0.01), "EMCAD of notebook 07 doesn't start with 0.02"
    assert together.pow(4).mean().item() == pytest.approx(3, abs=0.1), "EMCAD of notebook 07 doesn't start normal"


def test_the_heads_keep_pytorchs_own_start():
    torch.manual_seed(0)
    for head in create_model(num_classes=20).heads:
        bound = head.in_channels**-0.5  # uniform between this and its negative
        for tensor in (head.weight, head.bias):
            assert 0.7 * bound < tensor.abs().max() <= bound, f"{LESSON}: its heads start otherwise"


@pytest.mark.parametrize("training", [True, False])
def test_one_channel_is_lifted_to_three_by_a_convolution_a_normalisation_and_a_relu(training):
    torch.manual_seed(0)
    lift = create_model(in_channels=1).lift.train(training)
    x = 9 * torch.randn(4, 1, 32, 32)
    shapes = {name: tuple(t.shape) for name, t in lift.named_parameters()}
    wanted = {"0.weight": (3, 1, 1, 1), "0.bias": (3,), "1.weight": (3,), "1.bias": (3,)}
    assert shapes == wanted, f"{LESSON}: its lift of one channel to three has other parts"
    state = {name: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for name, t in lift.state_dict().items()}
    lift.load_state_dict(state)
    state = {name: t.clone() for name, t in lift.state_dict().items()}

    given = lift(x)

    lifted = x * state["0.weight"][:, 0] + state["0.bias"][:, None, None]
    means, spreads = lifted.mean(dim=(0, 2, 3)), lifted.var(dim=(0, 2, 3))
    kept = [0.9 * state["1.running_mean"] + 0.1 * means, 0.9 * state["1.running_var"] + 0.1 * spreads]
    if training:
        mean, var = means, lifted.var(dim=(0, 2, 3), correction=0)
    else:
        mean, var = kept = [state["1.running_mean"], state["1.running_var"]]
    scaled = (lifted - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None]
    expected = (scaled * state["1.weight"][:, None, None] + state["1.bias"][:, None, None]).clamp(min=0)
    close = torch.allclose(given, expected, atol=1e-5)
    close &= all(torch.allclose(a, b) for a, b in zip([lift[1].running_mean, lift[1].running_var], kept, strict=True))
    assert close, f"{LESSON}: its lift of one channel to three is another"


def test_the_lift_of_one_channel_stands_before_the_encoder():
    model = create_model(in_channels=1).eval()
    x = torch.randn(1, 1, 64, 64)
    inside = model.decoder(model.encoder(model.lift(x)))
    expected = F.interpolate(model.heads[3](inside[3]), scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.allclose(model(x)[3], expected, atol=1e-6), f"{LESSON}: its lift of one channel isn't asked"


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_encoder_leaves_out_the_share_of_branches_that_was_asked_for(share):
    """timm lets the share grow from none in the first block to the whole in the last."""
    shares = [m.drop_prob for m in create_model(drop_path=share).encoder.modules() if isinstance(m, DropPath)]
    assert max(shares, default=0) == pytest.approx(share), f"{LESSON}: its encoder leaves out another share"


def test_the_settings_have_the_same_defaults_in_both_places():
    written = {name: parameter.default for name, parameter in inspect.signature(create_model).parameters.items()}
    del written["pretrained"]
    stored = asdict(ModelConfig())
    assert stored.pop("network") == "emcad"  # which network it is, `create_network` asks
    assert written == stored, f"{LESSON}: its settings have two sets of defaults"


@pytest.mark.parametrize(("shape", "says"), [((1, 3, 240, 240), "256 x 256"), ((1, 4, 64, 64), "in_channels")])
def test_a_shape_that_cannot_work_is_refused_with_one_that_can(shape, says):
    with pytest.raises(ValueError, match=says):
        create_model()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "pvt_v2_b9"}, "pvt_v2_b0"),
        ({"encoder": "vit_tiny_patch16_224"}, "strides.*Take another encoder: pvt_v2_b0"),
        ({"kernel_sizes": (2, 4)}, "odd"),
        ({"kernel_sizes": ()}, "odd"),
        ({"activation": "swish"}, "relu6"),
        ({"num_classes": 0}, "num_classes must be 1 or more, not 0"),
        ({"in_channels": -1}, "in_channels must be 1 or more, not -1"),
        ({"expansion": 0}, "expansion must be 1 or more, not 0"),
    ],
)
def test_a_setting_that_cannot_be_built_is_refused_with_a_way_out(options, says):
    with pytest.raises(CourseError, match=says):
        create_model(**options)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_any_timm_encoder_with_the_right_strides_will_do(encoder):
    model = create_model(encoder).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps, features = model(x), model.encoder(x)
        if encoder.startswith("swin"):
            features = [feature.movedim(3, 1) for feature in features]  # (B, H, W, C) to (B, C, H, W)
        finest = model.heads[3](model.decoder(features)[3])
    sides = [tuple(feature.shape[-2:]) for feature in features]
    assert sides == [(side, side) for side in (56, 28, 14, 7)], f"{LESSON}: it takes other stages of {encoder}"
    assert [p.shape[-1] for p in maps] == [224] * 4
    enlarged = F.interpolate(finest, scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.allclose(maps[3], enlarged, atol=1e-5), f"{LESSON}: it gives {encoder}'s features on otherwise"


def test_an_encoder_whose_features_timm_cannot_give_is_named_with_others_that_work(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr("timm.create_model", refuse)

    with pytest.raises(
        CourseError, match="features of 'pvt_v2_b0' .*not implemented.*Take another encoder: pvt_v2_b0 to"
    ):
        create_model()


def test_without_the_download_the_message_says_so_and_names_the_way_out(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no connection")
        return create(*args, **kwargs)

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(CourseError, match=r"could not be downloaded \(no connection\).*load_encoder"):
        create_model(pretrained=True)
