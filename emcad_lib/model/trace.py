"""What each part of a network gives, holds, does and keeps: one pass through it, watched by hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from emcad_lib.files import CourseError

MEGABYTE = 2**20
ADDED_UP = ["parameters", "multiply-adds", "output MB", "kept MB"]


@dataclass
class Part:
    """What was seen of one part. The shape is that of its output (B, C, H, W), and empty until it has worked."""

    block: str
    parameters: int
    shape: tuple[int, ...] = ()
    multiply_adds: int = 0
    output_bytes: int = 0
    kept_bytes: int = 0


def trace(model: nn.Module, x: Tensor) -> pd.DataFrame:
    """Push a batch through a network, in training mode, and write down what each of its parts does.

    Args:
        model: a `PVTEMCAD`, or anything else with an encoder from timm, a decoder and heads. It stays as it is: a copy
            does the work.
        x: a batch of slices, as the model takes them. All but the parameters grows with the number of slices.

    Returns:
        a row for each part, named as in the code, in the order in which they work, and a last row, ``sum``. Columns:

        - block: the part's class.
        - stage, stride: of its output; stage 1 has stride 4, stage 4 stride 32, and the slice itself is stage 0.
        - shape: of its output for one slice, channels x height x width.
        - parameters: those registered under its name. What lies between two stages of the encoder is counted with the
          second one, and what lies before the first with the first.
        - multiply-adds: of convolutions and matrix products, as PyTorch's FlopCounterMode counts them.
        - output MB: the size of its output.
        - kept MB: what it adds to the memory that is kept for the backward pass. Each piece of memory is counted once,
          with the part that first asked for it; parameters and running statistics, which are there anyway, aren't.

        A part that works inside other parts, as the shared SAB does, has its parameters in a row of its own; its work
        and memory are counted where it works.

    Raises:
        CourseError: for a model without these three, or a batch that is too small to train with.
    """
    worker = copy.deepcopy(model).train()
    watch = _Watch()
    encoder, decoder, heads = (_named(worker, name) for name in ("encoder", "decoder", "heads"))
    lift = getattr(worker, "lift", None)
    if lift is not None and any(True for _ in lift.parameters()):
        watch.follow("lift", lift)
    stages = _follow_encoder(watch, encoder)
    for name, module in [*_children("decoder", decoder), *_children("heads", heads)]:
        watch.follow(name, module)
    with torch.random.fork_rng(devices=[]):  # dropping paths at random takes nothing from the caller's random numbers
        _run(worker, x, watch, lambda: worker(x))
    channels_last = getattr(worker, "channels_last", False)
    for name, feature in zip(stages, watch.features, strict=True):
        watch.parts[name].shape = tuple((feature.permute(0, 3, 1, 2) if channels_last else feature).shape)
        watch.parts[name].output_bytes = feature.nbytes
    return _table(watch, height=x.shape[-2])


def kept_bytes(model: nn.Module, x: Tensor, work: Callable[[nn.Module, Tensor], Any]) -> int:
    """Bytes that ``work`` keeps for the backward pass, counted as in `trace`: each piece of memory once, no parameters.

    Args:
        model: it stays as it is: a copy in training mode is handed to ``work``.
        x: a batch of slices (B, C, H, W), handed to ``work`` too.
        work: a forward pass, and whatever shall be counted with it, such as a loss.

    Raises:
        CourseError: for a batch that is too small to train with.
    """
    worker = copy.deepcopy(model).train()
    watch = _Watch(parts={"work": Part("", 0)}, at_work="work")
    with torch.random.fork_rng(devices=[]):
        _run(worker, x, watch, lambda: work(worker, x))
    return watch.parts["work"].kept_bytes


@dataclass
class _Watch:
    """What the hooks have seen so far. ``at_work`` is the part that is computing right now."""

    parts: dict[str, Part] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    at_work: str = ""
    counter: FlopCounterMode = field(default_factory=lambda: FlopCounterMode(display=False))
    counted: int = 0
    kept: dict[int, torch.UntypedStorage] = field(default_factory=dict)  # held, so that no address is used twice
    features: list[Tensor] = field(default_factory=list)

    def follow(self, name: str, module: nn.Module) -> None:
        """Notice when a part begins and when it ends."""
        self.parts[name] = Part(type(module).__name__, sum(p.numel() for p in module.parameters()))

        def ends(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if self.at_work == name:
                self.parts[name].shape = tuple(output.shape)
                self.parts[name].output_bytes = output.nbytes
                self.turn_to("")

        module.register_forward_pre_hook(lambda _module, _inputs: self.begins(name))
        module.register_forward_hook(ends)

    def begins(self, name: str) -> None:
        """A part is called. Inside another one it's lent, and works for that one."""
        if name not in self.order:
            self.order.append(name)
        if not self.at_work:
            self.turn_to(name)

    def turn_to(self, name: str) -> None:
        """Give what was counted since the last turn to the part that was at work, and go on with another one."""
        total = self.counter.get_total_flops()
        if self.at_work:
            self.parts[self.at_work].multiply_adds += (total - self.counted) // 2  # a multiply-add is two operations
        self.counted, self.at_work = total, name

    def keep(self, tensor: Tensor) -> None:
        """PyTorch puts a tensor aside for the backward pass, which never comes."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.kept:
            self.kept[storage.data_ptr()] = storage
            if self.at_work:
                self.parts[self.at_work].kept_bytes += storage.nbytes()


def _follow_encoder(watch: _Watch, encoder: Any) -> list[str]:
    """Notice when each stage of an encoder from timm is done, for then the next one begins. Returns their names."""
    modules = dict(encoder.named_modules())
    places = [_place(modules, name) for name in encoder.feature_info.module_name()]
    names = [f"encoder.{place}" for place in places]
    for place, name in zip(places, names, strict=True):
        watch.parts[name] = Part(type(modules[place]).__name__, 0)
    reached = 0
    for parameter_name, parameter in encoder.named_parameters():  # in the order in which the encoder was built
        inside = [i for i, place in enumerate(places) if parameter_name.startswith(f"{place}.")]
        stage = inside[0] if inside else min(reached, len(names) - 1)
        watch.parts[names[stage]].parameters += parameter.numel()
        reached = max(reached, stage + 1 if inside else reached)

    def goes_on_with(name: str) -> Callable[..., None]:
        def turn(*_arguments: Any) -> None:
            watch.turn_to("")
            watch.begins(name)

        return turn

    def ends(_module: nn.Module, _inputs: Any, output: list[Tensor]) -> None:
        watch.features = [feature.detach() for feature in output]
        watch.turn_to("")

    encoder.register_forward_pre_hook(goes_on_with(names[0]))
    for place, following in zip(places, names[1:], strict=False):
        modules[place].register_forward_hook(goes_on_with(following))
    encoder.register_forward_hook(ends)
    return names


def _place(modules: dict[str, nn.Module], name: str) -> str:
    """Where an encoder keeps a stage: timm flattens ``stages.0`` to ``stages_0``, or wraps the whole model."""
    for place in (name, name.replace(".", "_"), f"model.{name}"):
        if place in modules:
            return place
    raise CourseError(
        f"The encoder's stage {name!r} can't be told apart from the rest, as timm doesn't say where it begins. "
        "Trace a network on another one: pvt_v2_b0 to pvt_v2_b5, ResNets and ConvNeXts can be traced."
    )


def _named(model: nn.Module, name: str) -> Any:
    """The encoder, the decoder or the heads."""
    module = getattr(model, name, None)
    if not isinstance(module, nn.Module) or (name == "encoder" and not hasattr(module, "feature_info")):
        raise CourseError(
            f"trace takes a network with an encoder from timm, a decoder and heads; this {type(model).__name__} has no "
            f"such {name}. create_model makes one."
        )
    return module


def _children(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{prefix}.{name}", child) for name, child in module.named_children()]


def _run(worker: nn.Module, x: Tensor, watch: _Watch, work: Callable[[], Any]) -> None:
    """Let the worker do its forward pass on ``x`` as in training, with everything counted."""
    for tensor in (*worker.parameters(), *worker.buffers()):
        watch.kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
    saved = torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda _nothing: torch.empty(0))
    try:
        with torch.enable_grad(), watch.counter, saved:
            work()
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise CourseError(
            f"{len(x)} slice of {x.shape[-2]} x {x.shape[-1]} pixels leaves one value per channel at stride 32, and in "
            "training batch normalisation needs two or more. Give two slices, or larger ones."
        ) from error


def _table(watch: _Watch, height: int) -> pd.DataFrame:
    rows = []
    for name in [*watch.order, *(name for name in watch.parts if name not in watch.order)]:
        part = watch.parts[name]
        stride = height // part.shape[-2] if part.shape else None
        rows.append(
            {
                "part": name,
                "block": part.block,
                "stage": None if stride is None else max(stride.bit_length() - 2, 0),  # stride 4 is stage 1
                "stride": stride,
                "shape": " x ".join(str(side) for side in part.shape[1:]),
                "parameters": part.parameters,
                "multiply-adds": part.multiply_adds,
                "output MB": part.output_bytes / MEGABYTE,
                "kept MB": part.kept_bytes / MEGABYTE,
            }
        )
    table = pd.DataFrame(rows).set_index("part").astype({"stage": "Int64", "stride": "Int64"})
    table.loc["sum", ADDED_UP] = table[ADDED_UP].sum()
    table.loc["sum", ["block", "shape"]] = ""
    return table.astype({"parameters": int, "multiply-adds": int})
