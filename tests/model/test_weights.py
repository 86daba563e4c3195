"""Weights in and out of files, and the published layout."""

import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import PVTEMCAD, create_model
from emcad_lib.model.weights import load_encoder, load_official, load_weights, official_state_dict, save_weights


def randomised(**options: object) -> PVTEMCAD:
    """A network whose every number is random, BatchNorm's statistics too: nothing equals its initial value."""
    torch.manual_seed(0)
    model = create_model(**options)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return model.eval()


def published(layout: dict[str, tuple[int, ...]], encoder: str = "pvt_v2_b0") -> dict[str, torch.Tensor]:
    """Random weights under the published names: the layout's, and the encoder in PVT's own layout."""
    torch.manual_seed(1)
    state = {
        key: torch.zeros((), dtype=torch.long) if not shape else torch.rand(shape) for key, shape in layout.items()
    }
    for key, tensor in timm.create_model(encoder, num_classes=0).state_dict().items():
        key = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}", key)
        key = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"patch_embed{int(m[1]) + 1}", key)
        key = re.sub(r"^stages\.(\d)\.norm", lambda m: f"norm{int(m[1]) + 1}", key)
        key = re.sub(r"^patch_embed\.", "patch_embed1.", key).replace(".dwconv.", ".dwconv.dwconv.")
        state[f"backbone.{key}"] = torch.rand_like(tensor)
    return state


@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_weights_come_back_from_a_file_with_the_network_that_they_belong_to(tmp_path, in_channels):
    model = randomised(in_channels=in_channels, num_classes=2, kernel_sizes=(3, 5), activation="relu")
    save_weights(model, tmp_path / "w.safetensors", modalities='["flair"]')

    again = load_weights(tmp_path / "w.safetensors")

    x = torch.randn(1, in_channels, 64, 64)
    assert again.config == model.config
    assert again.metadata == {"modalities": '["flair"]'}
    assert not again.training
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_half_precision_halves_the_file_and_loads_as_single_precision(tmp_path):
    model = randomised()
    save_weights(model, tmp_path / "full.safetensors")
    save_weights(model, tmp_path / "half.safetensors", half=True)

    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "full.safetensors").stat().st_size
    again = load_weights(tmp_path / "half.safetensors")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(next(again.decoder.parameters()), next(model.decoder.parameters()).half().float())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"no such file of weights\. Give .*best\.safetensors.* words whole and regions"),
        (b"", r"can't be read .*fetch it again\. Give .*best\.safetensors"),
        (b"PK\x03\x04 a pickle", r"can't be read .*fetch it again\. Give .*best\.safetensors"),
    ],
)
def test_a_file_that_is_no_weights_file_is_refused_by_name_with_what_to_give(tmp_path, content, says):
    path = tmp_path / "odd.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=f"odd.safetensors: .*{says}"):
        load_weights(path)


def test_a_safetensors_file_of_another_project_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CourseError, match=r"other\.safetensors: .*doesn't say which network .*Give .*load_official"):
        load_weights(tmp_path / "other.safetensors")


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(CourseError, match=rf"{tmp_path.name}: this is a folder\. Give .*best\.safetensors"):
        load_weights(tmp_path)


def test_weights_of_a_network_that_cannot_be_built_are_named(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "newer.safetensors", {"config": '{"encoder": "pvt_v9"}'})
    with pytest.raises(CourseError, match=r"newer\.safetensors: .*can't be built\. .*'pvt_v9'.* pvt_v2_b0"):
        load_weights(tmp_path / "newer.safetensors")


@pytest.mark.parametrize("encoder", ["pvt_v2_b0", "pvt_v2_b2"])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_the_published_layout_loads_strictly_and_every_number_arrives(official_layout, encoder, activation):
    state = published(official_layout[encoder], encoder)
    model = create_model(encoder, in_channels=1, activation=activation)

    load_official(model, state)

    loaded = np.sort(np.concatenate([t.flatten().numpy() for t in model.state_dict().values()]))
    given = np.sort(np.concatenate([t.flatten().numpy() for t in state.values()]))
    np.testing.assert_array_equal(loaded, given)
    assert torch.equal(model.heads[0].weight, state["out_head4.weight"])
    for stage in (3, 2, 1):  # two parts of the same shapes, which a swap would still fit
        lgag = getattr(model.decoder, f"lgag{stage}")
        for part, name in ((lgag.judge_decoder, "W_g"), (lgag.judge_skip, "W_x")):
            assert torch.equal(part[0].weight, state[f"decoder.lgag{stage}.{name}.0.weight"])
            assert torch.equal(part[1].running_mean, state[f"decoder.lgag{stage}.{name}.1.running_mean"])
    assert torch.equal(model.decoder.mscam2.cab.expand.weight, state["decoder.cab2.fc2.weight"])
    assert torch.equal(model.encoder.stages_3.norm.weight, state["backbone.norm4.weight"])


@pytest.mark.parametrize("encoder", ["pvt_v2_b0", "pvt_v2_b2"])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_network_written_in_the_published_layout_has_exactly_its_names_and_comes_back(
    official_layout, encoder, activation, tmp_path
):
    model = randomised(encoder=encoder, in_channels=1, activation=activation)
    state = official_state_dict(model)

    rest = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith("backbone.")}
    assert rest == official_layout[encoder]
    backbone = {key.removeprefix("backbone."): t for key, t in state.items() if key.startswith("backbone.")}
    timm.create_model(encoder, num_classes=0).load_state_dict(
        timm.models.pvt_v2.checkpoint_filter_fn(backbone, model.encoder)
    )
    save_file(state, tmp_path / "published.safetensors")
    again = create_model(encoder, in_channels=1, activation=activation).eval()
    load_official(again, load_file(tmp_path / "published.safetensors"))
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_a_three_channel_network_leaves_the_one_channel_convolution_out(official_layout):
    model = create_model(in_channels=3)
    load_official(model, published(official_layout["pvt_v2_b0"]))
    assert not any(key.startswith("lift") for key in model.state_dict())


def test_missing_unknown_and_misshapen_keys_are_all_named_and_nothing_is_loaded(official_layout):
    state = published(official_layout["pvt_v2_b0"])
    del state["decoder.sab.conv.weight"]
    del state["backbone.norm2.bias"]
    state["decoder.sap.conv.weight"] = torch.zeros(1)
    state["out_head4.weight"] = torch.zeros(9, 256, 1, 1)
    model = create_model(in_channels=1)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    with pytest.raises(CourseError) as caught:
        load_official(model, state)

    message = str(caught.value)
    assert "missing: decoder.sab.conv.weight" in message
    assert "missing: backbone.norm2.bias" in message
    assert "unknown: decoder.sap.conv.weight" in message
    assert "misshapen: out_head4.weight is (9, 256, 1, 1), should be (1, 256, 1, 1)" in message
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_weights_without_an_encoder_leave_the_encoder_as_it_is_and_say_so(official_layout):
    state = {key: t for key, t in published(official_layout["pvt_v2_b0"]).items() if not key.startswith("backbone.")}
    model = create_model(in_channels=1)
    before = model.encoder.patch_embed.proj.weight.clone()
    with pytest.warns(UserWarning, match="no encoder"):
        load_official(model, state)
    assert torch.equal(model.encoder.patch_embed.proj.weight, before)
    assert torch.equal(model.heads[3].weight, state["out_head1.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_of_imagenet_weights_reaches_the_encoder(tmp_path, suffix):
    weights = {key: torch.rand_like(t) for key, t in timm.create_model("pvt_v2_b0").state_dict().items()}
    path = tmp_path / f"pvt_v2_b0{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    model = create_model()
    decoder = model.decoder.sab.conv.weight.clone()

    load_encoder(model, path)

    assert torch.equal(model.encoder.stages_2.blocks[0].attn.q.weight, weights["stages.2.blocks.0.attn.q.weight"])
    assert torch.equal(model.decoder.sab.conv.weight, decoder)


def test_weights_of_another_encoder_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(
        CourseError, match="(?s)resnet.pth .*of the encoder pvt_v2_b0.*missing: encoder.patch_embed.proj"
    ):
        load_encoder(create_model(), tmp_path / "resnet.pth")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.pth", None, "there is no such file of weights"),
        ("gone.safetensors", None, "there is no such file of weights"),
        ("text.pth", b"hello, only text", "not a file of weights that can be read safely"),
        ("text.safetensors", b"hello, only text", "can't be read as a safetensors file"),
    ],
)
def test_a_file_without_imagenet_weights_is_named_with_what_to_give(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CourseError, match=rf"{name}: .*{says}.*\. Give the encoder's ImageNet weights"):
        load_encoder(create_model(), tmp_path / name)


def test_a_list_of_tensors_is_no_file_of_imagenet_weights(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(CourseError, match=r"list\.pth: .*Give the encoder's ImageNet weights"):
        load_encoder(create_model(), tmp_path / "list.pth")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CourseError, match="read safely"):
        load_encoder(create_model(), tmp_path / "bomb.pth")
    assert not (tmp_path / "boom").exists()


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"before")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(CourseError, match="w.safetensors: the disk is full"):
        save_weights(create_model(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == b"before"
