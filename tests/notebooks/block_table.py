"""Every block of the network: where a lesson builds it, and what it is compared with.

A block of the library without a row here fails ``test_built_twice.py``.
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emcad_lib.model import blocks, decoder, pvt_emcad

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
Make = Callable[[type[nn.Module], Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Block:
    """A row of the table.

    Attributes:
        name: of the class, in the lesson and in the library.
        lesson: the number of the notebook that defines it, in a cell tagged ``defines:<name>``.
        library: the class that the library has.
        published: how the names of its tensors begin in the published layout; ``{stage}`` is a digit.
        configurations: two sets of settings or more; the first leaves as much as possible at its default.
        inputs: for a set of settings, the shapes of the inputs of three calls: (call, input, axis).
        make: builds it from a class and settings.
    """

    name: str
    lesson: str
    library: type[nn.Module]
    published: Sequence[str]
    configurations: Sequence[Mapping[str, Any]]
    inputs: Callable[[Mapping[str, Any]], Sequence[Sequence[Sequence[int]]]]
    make: Make = field(default=lambda kind, settings: kind(**settings))

    def __str__(self) -> str:
        return self.name

    @property
    def notebook(self) -> str:
        """The file that defines it, as one would look it up."""
        (path,) = [path for path in LESSONS if path.name.startswith(self.lesson)]
        return f"notebooks/{path.name}"


def _plain(settings: Mapping[str, Any]) -> list[list[tuple[int, ...]]]:
    channels = settings.get("channels") or settings.get("in_channels") or 5
    return [[(2, channels, 12, 12)], [(1, channels, 7, 9)], [(3, channels, 2, 5)]]


def _gate(settings: Mapping[str, Any]) -> list[list[tuple[int, ...]]]:
    return [shapes * 2 for shapes in _plain(settings)]  # g and x


def _stages(settings: Mapping[str, Any]) -> list[list[tuple[int, ...]]]:
    return [
        [
            (2, width, height // stride, across // stride)
            for width, stride in zip(settings["channels"], pvt_emcad.STRIDES, strict=True)
        ]
        for height, across in ((64, 64), (32, 96), (96, 64))
    ]


def _slices(settings: Mapping[str, Any]) -> list[list[tuple[int, ...]]]:
    return [[(2, 3, 64, 64)], [(2, 3, 32, 96)]]


class Borrowing(nn.Module):
    """An MSCAM and the SAB that it is lent, whose owner stands beside it, as in the decoder."""

    def __init__(self, kind: type[nn.Module], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.owned = blocks.SAB()
        self.mscam = kind(**settings, shared_sab=self.owned)

    def forward(self, x: Tensor) -> Tensor:
        return self.mscam(x)


def _mscam(kind: type[nn.Module], settings: Mapping[str, Any]) -> nn.Module:
    """With a SAB of its own, or, where the settings say ``lent``, with one that it is lent."""
    rest = dict(settings)
    return Borrowing(kind, rest) if rest.pop("lent", False) else kind(**rest)


def _network(kind: type[nn.Module], settings: Mapping[str, Any]) -> nn.Module:
    """The library's network takes a configuration; the lesson's an encoder from timm, as it is, and the rest."""
    if kind is pvt_emcad.PVTEMCAD:
        return pvt_emcad.create_model(**settings)
    rest = dict(settings)
    return kind(timm.create_model(rest.pop("encoder"), features_only=True, pretrained=False), **rest)


OTHER = {"kernel_sizes": (3, 5, 7), "expansion": 3, "activation": "relu"}
IN_MSCB = ("decoder.mscb{stage}.0.pconv1.", "decoder.mscb{stage}.0.msdc.dwconvs.", "decoder.mscb{stage}.0.pconv2.")
IN_CAB = ("decoder.cab{stage}.fc1.", "decoder.cab{stage}.fc2.")
IN_LGAG = ("decoder.lgag{stage}.W_g.", "decoder.lgag{stage}.W_x.", "decoder.lgag{stage}.psi.")
IN_EUCB = ("decoder.eucb{stage}.up_dwc.", "decoder.eucb{stage}.pwc.")
IN_DECODER = ("decoder.sab.", *IN_CAB, *IN_MSCB, *IN_LGAG, *IN_EUCB)

TABLE = [
    Block(
        "MSDC",
        "03",
        blocks.MSDC,
        ("decoder.mscb{stage}.0.msdc.dwconvs.",),
        [{"channels": 8}, {"channels": 6, "kernel_sizes": (3, 7), "activation": "gelu"}],
        _plain,
    ),
    Block(
        "MSCB",
        "03",
        blocks.MSCB,
        IN_MSCB,
        [{"in_channels": 8, "out_channels": 8}, {"in_channels": 6, "out_channels": 10, **OTHER}],
        _plain,
    ),
    Block(
        "CAB", "04", blocks.CAB, IN_CAB, [{"channels": 32}, {"channels": 14, "reduction": 4}, {"channels": 8}], _plain
    ),
    Block("SAB", "04", blocks.SAB, ("decoder.sab.",), [{}, {"kernel_size": 3}], _plain),
    Block(
        "MSCAM",
        "04",
        blocks.MSCAM,
        ("decoder.sab.", *IN_CAB, *IN_MSCB),
        [{"channels": 16}, {"channels": 6, **OTHER}, {"channels": 4, "lent": True}],
        _plain,
        _mscam,
    ),
    Block("LGAG", "05", blocks.LGAG, IN_LGAG, [{"channels": 8}, {"channels": 6}], _gate),
    Block(
        "EUCB",
        "06",
        blocks.EUCB,
        IN_EUCB,
        [{"in_channels": 8, "out_channels": 8}, {"in_channels": 6, "out_channels": 4}],
        _plain,
    ),
    Block(
        "EMCAD",
        "07",
        decoder.EMCAD,
        IN_DECODER,
        [{"channels": (4, 6, 8, 32)}, {"channels": (6, 8, 10, 12), **OTHER}],
        _stages,
    ),
    Block(
        "PVTEMCAD",
        "07",
        pvt_emcad.PVTEMCAD,
        (*IN_DECODER, "out_head{stage}."),
        [{"encoder": "pvt_v2_b0"}, {"encoder": "pvt_v2_b0", "num_classes": 3, **OTHER}],
        _slices,
        _network,
    ),
]


def definitions(upto: str) -> dict[str, Any]:
    """The blocks that the lessons up to number ``upto`` define, made by their ``defines:`` cells and nothing else.

    What a lesson takes from the library for a block that an earlier lesson built, is that earlier one here. So a block
    is compared with the library's in all its parts.
    """
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math}
    names["library"] = names["blocks"] = types.SimpleNamespace()
    for path in LESSONS:
        if path.name[:2] > upto:
            break
        for cell in nbformat.read(path, as_version=4).cells:
            if any(tag.startswith("defines:") for tag in cell.metadata.get("tags", [])):
                exec(compile(cell.source, path.name, "exec"), names)
        for name, made in list(names.items()):
            if isinstance(made, type) and issubclass(made, nn.Module):
                setattr(names["library"], name, made)
    return names


def changed(kind: type[nn.Module], old: str, new: str, occurrence: int = 0) -> type[nn.Module]:
    """The library's class with one piece of its source replaced: a slip of the pen, for trying the tests on."""
    source = inspect.getsource(kind)
    places = [found.start() for found in re.finditer(re.escape(old), source)]
    assert places, f"{kind.__name__} has no {old!r} (any more): mend the table of changes."
    at = places[occurrence]
    module = inspect.getmodule(kind)
    names = dict(vars(module))
    exec(compile(source[:at] + new + source[at + len(old) :], f"{kind.__name__} changed", "exec"), names)
    return names[kind.__name__]


def difference(block: Block, ours: type[nn.Module], theirs: type[nn.Module]) -> str:
    """In what the lesson's class and the library's differ, or nothing.

    Names and shapes, loading both ways, outputs, gradients of every input and parameter, and what batch normalisation
    remembers; in training and in evaluation, for all configurations and shapes, in double precision.
    """
    for settings in block.configurations:
        torch.manual_seed(0)
        try:
            one, other = block.make(ours, settings).double(), block.make(theirs, settings).double()
        except Exception as error:
            return f"with {settings} can't be built: {error}"
        shapes = [{name: tuple(value.shape) for name, value in made.state_dict().items()} for made in (one, other)]
        if shapes[0] != shapes[1]:
            odd = sorted(f"{name} {shape}" for name, shape in set(shapes[0].items()) ^ set(shapes[1].items()))
            return f"with {settings} has other names or shapes: {', '.join(odd[:4])}"
        for giver, taker in ((one, other), (other, one)):
            _randomise(giver)
            taker.load_state_dict(giver.state_dict(), strict=True)
            for sizes in block.inputs(settings):
                x = [torch.randn(size, dtype=torch.float64) for size in sizes]
                for training in (True, False):
                    mode = "training" if training else "evaluation"
                    call = f"with {settings}, {[list(size) for size in sizes]}, in {mode}"
                    try:
                        found = [_outcome(made.train(training), x) for made in (one, other)]
                    except Exception as error:
                        return f"{call} can't be called: {error}"
                    if what := _first_unlike(*found):
                        return f"{call}: {what}"
    return ""


def _first_unlike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """The first of the named values that the other side lacks, has in another shape, or has otherwise; or nothing."""
    for what in [*one, *other]:
        if what not in one or what not in other:
            return f"{what} is there on one side only"
        if one[what].shape != other[what].shape:
            return f"{what} has the shapes {tuple(one[what].shape)} and {tuple(other[what].shape)}"
        if not torch.allclose(one[what], other[what], rtol=1e-6, atol=1e-9):
            return what
    return ""


def _randomise(made: nn.Module) -> None:
    """Weights and statistics that nothing hides behind: no scale is 1, no shift is 0, no variance is 1."""
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.ndim == 1 and name.endswith("weight"):  # of a normalisation: some values must go beyond 6
                value.uniform_(1, 6)
            elif value.is_floating_point():
                value.uniform_(-0.5, 0.7)


def _outcome(made: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Outputs, gradients and buffers after one call, by name."""
    given = [x.clone().requires_grad_() for x in inputs]
    output = made(given) if len(given) == 4 else made(*given)  # a decoder takes its four features as one list
    maps = list(output) if isinstance(output, list | tuple) else [output]
    parameters = dict(made.named_parameters())
    wanted = [*given, *parameters.values()]
    loss = sum((map_ * torch.linspace(0.5, 1.5, map_.numel(), dtype=map_.dtype).view_as(map_)).sum() for map_ in maps)
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    named = [f"the gradient of input {number}" for number in range(len(given))]
    named += [f"the gradient of {name}" for name in parameters]
    return (
        {f"output {number}": map_.detach() for number, map_ in enumerate(maps)}
        | {
            name: torch.zeros((), dtype=torch.float64) if grad is None else grad
            for name, grad in zip(named, gradients, strict=True)
        }
        | {f"the buffer {name}": value.double() for name, value in made.named_buffers()}
    )
