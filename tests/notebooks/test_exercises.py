"""The exercises' own checks: they ask for an answer, refuse three plausible wrong ones, and take the solution.

Nothing is run here but imports, definitions and the exercises: for each, the lesson's functions and classes, then an
answer in place of the stub, then the call of the check as it stands in the lesson.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# What the exercises of a lesson take from its course, beside imports and definitions.
TAKEN = {
    "04": "shared = SAB()",
    "07": "channels = [32, 64, 160, 256]",
    "11": "empty = np.zeros((2, 2), dtype=bool); one = np.array([[1, 0], [0, 0]], dtype=bool)",
}
BINDINGS = (ast.Assign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Exercise:
    """An exercise of a lesson: its stub, and the call that checks the answer."""

    lesson: str
    number: int
    names: frozenset[str]
    stub: str
    call: str

    def __str__(self) -> str:
        return f"{self.lesson[:2]}-{self.number}"


def code_of(path: Path) -> list[str]:
    """The code cells, without the setup cell."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])]


def bound(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value to."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return set()


def exercises(lesson: Path) -> list[Exercise]:
    """Every exercise of a lesson, in order, found by the call of its check: ``print(check_...(the answer))``."""
    cells = code_of(lesson)
    found: list[Exercise] = []
    for statement in (line for cell in cells for line in ast.parse(cell).body):
        match statement:
            case ast.Expr(ast.Call(args=[ast.Call(func=ast.Name(check)) as call])) if check.startswith("check_"):
                used = {node.id for part in call.args for node in ast.walk(part) if isinstance(node, ast.Name)}
                (stub,) = [cell for cell in cells if is_stub(cell) and bound_in(cell) & used]
                found.append(Exercise(lesson.stem, len(found) + 1, frozenset(bound_in(stub)), stub, ast.unparse(call)))
    return found


def bound_in(cell: str) -> set[str]:
    return set().union(*(bound(line) for line in ast.parse(cell).body))


def is_stub(cell: str) -> bool:
    """Whether a cell is one to fill in: nothing stands there but ``None`` or a place for one's own code."""
    return "# your" in cell or "None  # " in cell


LESSONS = sorted([*NOTEBOOKS.glob("0[3-7]_*.ipynb"), *NOTEBOOKS.glob("11_*.ipynb")])
EXERCISES = [exercise for lesson in LESSONS for exercise in exercises(lesson)]


def outcome(exercise: Exercise, answer: str) -> str:
    """What the lesson's check says to ``answer``, a piece of code in place of the stub."""
    names: dict[str, Any] = {}
    for cell in code_of(NOTEBOOKS / f"{exercise.lesson}.ipynb"):
        for statement in ast.parse(cell).body:
            definition = isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)
            if definition and not bound(statement) & exercise.names:
                exec(compile(ast.Module([statement], []), exercise.lesson, "exec"), names)
    exec(TAKEN.get(exercise.lesson[:2], ""), names)
    exec(answer, names)
    return str(eval(exercise.call, names))


def solution(exercise: Exercise) -> str:
    """The answer of the page of solutions: the cells that give the exercise's names a value, without what they show."""
    page = NOTEBOOKS / "solutions" / f"{exercise.lesson}_solutions.ipynb"
    lines = []
    for cell in code_of(page):
        statements = ast.parse(cell).body
        if any(bound(statement) & exercise.names for statement in statements):
            lines += [ast.unparse(statement) for statement in statements if isinstance(statement, BINDINGS)]
    return "\n".join(lines)


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_check_asks_for_an_answer_as_long_as_the_stub_is_untouched(exercise):
    said = outcome(exercise, exercise.stub)
    assert said
    assert not said.startswith("Right")


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_check_takes_the_solution(exercise):
    said = outcome(exercise, solution(exercise))
    assert said.startswith("Right"), said


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.name[:2])
def test_a_lesson_has_three_exercises_or_more(lesson):
    assert len(exercises(lesson)) >= 3


def method(kind: str, body: str, name: str = "forward", arguments: str = "x") -> str:
    """A class that inherits from ``kind`` and overrides one method, called as the exercise calls it."""
    lines = "\n        ".join(body.splitlines())
    return f"class ANSWER({kind}):\n    def {name}(self, {arguments}):\n        {lines}\n"


def gate(body: str) -> str:
    lines = "\n        ".join(["super().__init__(channels)", "half = channels // 2", *body.splitlines()])
    return f"class ANSWER(LGAG):\n    def __init__(self, channels):\n        {lines}\n"


EARLY = """class EarlyEUCB(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, 1)
        self.smooth = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return {}
"""


def without_gates(**changes: str) -> str:
    """A decoder without gates, but for one slip."""
    into = {"d3": "self.eucb3(d4) + x3", "d2": "self.eucb2(d3) + x2", "d1": "self.eucb1(d2) + x1"} | changes
    lines = "\n".join(f"{name} = self.mscam{name[1]}({what})" for name, what in into.items())
    body = f"x1, x2, x3, x4 = features\nd4 = self.mscam4(x4)\n{lines}\nreturn [d4, d3, d2, d1]"
    return method("EMCAD", body, arguments="features")


LEAN = "self.judge_decoder[0] = nn.Conv2d(channels, half, 3, padding=1, groups=half, bias={})\n"
LEAN += "self.judge_skip[0] = nn.Conv2d(channels, half, 3, padding=1, groups=half, bias={})\n"
LEAN += "self.agree[0] = nn.Conv2d(half, 1, 1, bias={})"
FOLD = """def fold_end(mscb):
    convolution, norm = mscb.narrow
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
    order = mscb.shuffle(torch.arange(convolution.in_channels).view(1, -1, 1, 1)).flatten()
    {}
    return folded
"""
SHUFFLE = """def as_pixel_shuffle(transposed):
    C, C_out = transposed.in_channels, transposed.out_channels
    pointwise = nn.Conv2d(C, 4 * C_out, 1)
    pointwise.weight.data = transposed.weight.data.permute({}).reshape(4 * C_out, C, 1, 1)
    pointwise.bias.data = {}
    return nn.Sequential(pointwise, nn.PixelShuffle(2))
"""
PER_CHANNEL = "self.agree = nn.Sequential(nn.Conv2d(half, channels, 1),"
UNITS = "def units_kept(branches, wide):\n    return {}"

# Three answers or more that somebody could give and that aren't right, for each exercise.
# ANSWER is the name that is asked for.
WRONG: dict[str, list[str]] = {
    "03-1": ["width = 7", "width = 14", "width = 49"],
    "03-2": [
        "extra_parameters, kernels_of_the_paper = 24_576, (1, 3, 5)",  # forgot the expansion
        "extra_parameters, kernels_of_the_paper = 49_152, (3, 5, 7)",
        "extra_parameters, kernels_of_the_paper = 49_152, 135",
    ],
    "03-3": [
        FOLD.format("folded.weight.copy_(convolution.weight * scale[:, None, None, None])"),  # neither bias nor columns
        FOLD.format(
            "folded.weight[:, order] = convolution.weight; folded.bias.copy_(norm.bias - scale * norm.running_mean)"
        ),
        FOLD.format(
            "folded.weight.copy_(convolution.weight[:, order] * scale[:, None, None, None]); "
            "folded.bias.copy_(norm.bias - scale * norm.running_mean)"  # the inverse shuffle
        ),
        "def fold_end(mscb):\n    return nn.Sequential(mscb.shuffle, *mscb.narrow)",  # folds nothing
        "def fold_end(mscb):\n    return lambda x: mscb.narrow(mscb.shuffle(x))",
    ],
    "03-4": [
        method("MSDC", "return sum(branch(x) for branch in self.branches)"),
        method("MSDC", "for branch in self.branches:\n    x = branch(x)\nreturn x"),
        method(
            "MSDC", "total = x\nfor branch in self.branches:\n    x = branch(x)\n    total = total + x\nreturn total"
        ),
    ],
    "04-1": ["cab_parameters = 2 * 8192", "cab_parameters = 512 * 32", "cab_parameters = 2 * 512 * 16"],
    "04-2": [
        "def clarity(k, w):\n    return min(k, w) ** 2 / k ** 2\n\nsmallest_width = 5",
        "def clarity(k, w):\n    return min(k, w) ** 2 / k\n\nsmallest_width = 4",
        "def clarity(k, w):\n    return min(k, w) ** 2 / k\n\nsmallest_width = 7",
    ],
    "04-3": [
        method("MSCAM", "y = self.cab(x) * x\nreturn self.mscb(self.sab(y) * y)"),
        method("MSCAM", "return self.mscb(self.cab(x) * self.sab(x) * x)"),
        method("MSCAM", "z = self.sab(x) * x\nreturn self.mscb(self.cab(z) * x)"),
    ],
    "04-4": [
        "def without_aliases(state):\n    return dict(state)",
        "def without_aliases(state):\n    return {k: v for k, v in state.items() if k.startswith('0')}",
        "def without_aliases(state):\n    last = {v.data_ptr(): k for k, v in state.items()}\n"
        "    return {k: state[k] for k in last.values()}",  # the last name of each
        "def without_aliases(state):\n    return {k: v for k, v in state.items() if not k.startswith('1')}",
    ],
    "05-1": ["smallest = 18", "smallest = 22", "smallest = 19"],
    "05-2": [
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[1].bias, 100.0)\n    return gate",
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[0].bias, 100.0)\n    return gate",
        "def prop_open(gate):\n    nn.init.zeros_(gate.agree[1].weight)\n    return gate",
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[1].bias, 1e8)\n    return gate",
    ],
    "05-3": [
        gate("for part in (self.judge_decoder, self.judge_skip, self.agree):\n    part[1].bias = None"),
        gate(LEAN.format("False", "False", "True")),
        gate(LEAN.format("True", "True", "False")),
    ],
    "05-4": [
        gate("self.agree = nn.Sequential(nn.Conv2d(half, channels, 3, padding=1), nn.BatchNorm2d(channels))"),
        gate("self.agree = nn.Sequential(nn.Conv2d(half, channels, 1, bias=False), nn.BatchNorm2d(channels))"),
        gate("self.agree = nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half))"),
        gate(f"{PER_CHANNEL} nn.BatchNorm2d(channels), nn.Sigmoid())"),  # the second one
        gate(f"{PER_CHANNEL} nn.ReLU(), nn.BatchNorm2d(channels))"),
        gate(f"{PER_CHANNEL} nn.GroupNorm(1, channels))"),
    ],
    "06-1": ["even_sizes = [2, 4, 6]", "even_sizes = [3]", "even_sizes = [3, 4, 5, 6]", "even_sizes = 3"],
    "06-2": [
        "def bilinear_kernel():\n    return torch.full((3, 3), 1 / 9)",
        "def bilinear_kernel():\n    return torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 4",
        "def bilinear_kernel():\n    return torch.tensor([0.25, 0.5, 0.25])",
        "def bilinear_kernel():\n    return [[0.0625, 0.125, 0.0625], [0.125, 0.25, 0.125], [0.0625, 0.125, 0.0625]]",
    ],
    "06-3": [
        EARLY.format("F.relu(self.smooth(F.interpolate(self.norm(self.mix(x)), scale_factor=2)))"),
        EARLY.format("F.relu(self.norm(self.smooth(F.interpolate(self.mix(x), scale_factor=2, mode='bilinear'))))"),
        EARLY.format("F.relu(self.norm(self.smooth(self.mix(F.interpolate(x, scale_factor=2)))))"),
        EARLY.format("F.relu(self.smooth(F.interpolate(self.mix(x), scale_factor=2)))"),
    ],
    "06-4": [
        SHUFFLE.format("1, 2, 3, 0", "transposed.bias.data.repeat(4)"),
        SHUFFLE.format("1, 3, 2, 0", "transposed.bias.data.repeat_interleave(4)"),
        SHUFFLE.format("2, 3, 1, 0", "transposed.bias.data.repeat_interleave(4)"),
    ],
    "07-1": ["expansion_4 = 2 * 506_507", "expansion_4 = 506_507", "expansion_4 = '935563'"],
    "07-2": [
        UNITS.format("24"),
        UNITS.format("3 + 3 * 2 + branches * 2 * 2 + 2 + 1"),  # forgot the expansion
        UNITS.format("3 + 2 * wide + branches * 3 * wide + wide + 1"),  # the branches' common input for each of them
        UNITS.format("3 * wide + branches * 2 * wide + wide + 1"),  # without the inputs of CAB, SAB and MSCB
        UNITS.format("3 + 3 * wide + branches * wide + wide + 1"),  # one map in each branch
        UNITS.format("3 + 3 * wide + branches * 2 * wide + wide + wide"),  # what BN gets at the end isn't wide
    ],
    "07-3": [
        without_gates(d3="self.eucb3(d4) + self.lgag3(self.eucb3(d4), x3)"),
        without_gates(d3="self.eucb3(d4)", d2="self.eucb2(d3)"),  # only the last skip connection
        without_gates(d3="x3", d2="x2", d1="x1"),  # nothing comes up from below
    ],
    "07-4": [
        "def with_encoder(name):\n    return PVTEMCAD(timm.create_model(name, features_only=True, pretrained=False))",
        "def with_encoder(name):\n    return PVTEMCAD(\n"
        "        timm.create_model(name, features_only=True, pretrained=False, out_indices=(0, 1, 2, 3)))",
        "def with_encoder(name):\n"
        "    return PVTEMCAD(timm.create_model('pvt_v2_b0', features_only=True, pretrained=False))",
        "def with_encoder(name):\n    return PVTEMCAD(\n"
        "        timm.create_model(name, features_only=True, pretrained=False, out_indices=(1, 2, 3, 4)))",
        "def with_encoder(name):\n    return timm.create_model(name, features_only=True, pretrained=False)",
    ],
    "11-1": [
        "with_zero, with_one = 0.8, 0.8",  # the empty slices left out
        "with_zero, with_one = 0.92, 0.32",
        "with_zero, with_one = 0.32, 0.8",
    ],
    "11-2": [
        "def iou(p, t):\n    return library.dice(p, t)",
        "def iou(p, t):\n    return (p & t).sum() / max(p.sum() + t.sum(), 1)",  # the shared pixels counted twice
        "def iou(p, t):\n    return (p & t).sum() / max((p | t).sum(), 1)",  # 0 for two empty masks
    ],
    "11-3": [
        "def flatterer(slice_):\n    return slice_ > 0",
        "def flatterer(slice_):\n    return np.zeros(slice_.shape, dtype=bool)",
        "def flatterer(slice_):\n    return slice_",
    ],
    "11-4": [
        "def to_report(validation, test):\n    return test.max()",
        "def to_report(validation, test):\n    return validation.max()",
        "def to_report(validation, test):\n    return validation[test.argmax()]",
        "def to_report(validation, test):\n    return test[-1]",
        "def to_report(validation, test):\n    return test.mean()",
    ],
}


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_check_refuses_three_plausible_wrong_answers(exercise):
    answers = WRONG[str(exercise)]
    assert len(answers) >= 3
    for answer in answers:
        if "ANSWER" in answer:
            (name,) = exercise.names
            answer = answer.replace("ANSWER", name)
        said = outcome(exercise, answer)
        assert said, answer
        assert not said.startswith("Right"), answer


def test_no_wrong_answers_are_left_over():
    assert set(WRONG) == {str(exercise) for exercise in EXERCISES}
