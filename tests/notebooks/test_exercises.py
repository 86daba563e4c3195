"""The exercises' own checks: they ask for an answer, refuse three plausible wrong ones, and take the solution.

Nothing is run here but imports, definitions and the exercises: for each, the lesson's functions and classes, then an
answer in place of the stub, then the call of the check as it stands in the lesson.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from wrong_answers import WRONG

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# What the exercises of a lesson take from its course, beside imports and definitions.
TAKEN = {
    "02": "SEED = 0",
    "04": "shared = SAB()",
    "07": "channels = [32, 64, 160, 256]",
    "11": "empty = np.zeros((2, 2), dtype=bool); one = np.array([[1, 0], [0, 0]], dtype=bool)",
    "12": "cube = np.zeros((50, 50, 50), dtype=bool); cube[5:15, 20:30, 20:30] = True\n"
    "stray = cube.copy(); stray[44, 25, 25] = True",
    "13": "import torch",  # its check does so only for itself
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


@cache
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


LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
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
    """The answer of the page of solutions: the cells that give the exercise's names a value, up to there."""
    page = NOTEBOOKS / "solutions" / f"{exercise.lesson}_solutions.ipynb"
    lines = []
    for cell in code_of(page):
        statements = ast.parse(cell).body
        last = max((n for n, statement in enumerate(statements) if bound(statement) & exercise.names), default=-1)
        lines += [ast.unparse(statement) for statement in statements[: last + 1] if isinstance(statement, BINDINGS)]
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


# Right answers that aren't written as on the page of solutions.
OTHERWISE: dict[str, list[str]] = {
    "00-1": ["answer_1 = np.float32(0.6)"],
    "00-3": [
        "def worst_slice(truth, found):\n    scores = np.full(truth.shape[2], np.inf)\n"
        "    for k in np.flatnonzero(truth.any(axis=(0, 1))):\n        scores[k] = dice(found[..., k], truth[..., k])\n"
        "    return scores.argmin() if truth.any() else -1"
    ],
    "01-3": [
        "def extent(bits, region='whole'):\n"
        "    where = [k for k in range(len(bits)) if region_mask(bits[k], region).any()]\n"
        "    return [where[0], where[-1]] if where else [-1, -1]"
    ],
    "01-4": [
        "def best_threshold(z, target, thresholds):\n    scores = [dice(z > t, target) for t in thresholds]\n"
        "    return np.array([thresholds[np.argmax(scores)], max(scores)])"
    ],
    "02-1": ["largest_error = 0.36", "largest_error = np.float64(0.357)"],
    "02-2": ["def leaking(train, test):\n    return tuple(sorted(set(dict(train)) & set(dict(test))))"],
    "02-3": [
        "def robust_scores(image):\n    inside = image[image > 0]\n"
        "    spread = np.subtract(*np.percentile(inside, (75, 25))) / 1.349\n"
        "    return np.where(image > 0, (image - np.median(inside)) / spread, 0)"
    ],
    "02-4": [
        "def drop_modality(x, generator):\n    x = x.clone()\n    for one in x:\n"
        "        one[torch.randint(len(one), (1,), generator=generator)] = 0\n    return x",
        "def drop_modality(x, generator):\n    noise = torch.rand(*x.shape[:2], 1, 1, generator=generator)\n"
        "    return x * (noise < noise.amax(dim=1, keepdim=True))",
    ],
    "08-3": [
        "def subset_sums(maps):\n"
        "    return torch.stack([sum(maps[m] for m in range(4) if n >> m & 1) for n in range(1, 16)])"
    ],
    "09-2": [
        "def spread_of_means(batch_size, repeats, generator):\n"
        "    return np.std([np.mean(generator.normal(size=batch_size)) for _ in range(repeats)])"
    ],
    "09-3": [
        "def accumulated_gradient(model, batches, loss):\n    total = 0\n    for x, y in batches:\n"
        "        parts = torch.autograd.grad(loss(model(x), y), list(model.parameters()))\n"
        "        total = total + torch.cat([part.flatten() for part in parts])\n    return total / len(batches)"
    ],
    "10-2": ["def smoothed(values, keep):\n    return pd.Series(values).ewm(alpha=1 - keep, adjust=False).mean()"],
    "10-3": [
        "def dice_at_updates(history, updates):\n    answer = np.nan\n"
        "    for _, row in history.iterrows():\n        if row['updates'] <= updates:\n"
        "            answer = row['dice_patient']\n    return answer"
    ],
    "12-2": [
        "def sensitivity(found, truth):\n    missed = (truth & ~found).sum()\n"
        "    return 1 - missed / truth.sum() if truth.sum() else float('nan')"
    ],
    "12-3": [
        "def worst_distance(found, truth):\n    return np.max(ndimage.distance_transform_edt(np.invert(truth)) * found)"
    ],
}


@pytest.mark.parametrize("exercise", [one for one in EXERCISES if str(one) in OTHERWISE], ids=str)
def test_the_check_takes_a_right_answer_that_is_written_otherwise(exercise):
    for answer in OTHERWISE[str(exercise)]:
        assert outcome(exercise, answer).startswith("Right"), answer


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.name[:2])
def test_a_lesson_has_three_exercises_or_more(lesson):
    assert len(exercises(lesson)) >= 3


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


# Answers of a kind that nobody asked for, and the lessons whose checks know what to say to them. The others' give
# Python's own error so far.
KINDS = ["'six'", "[1.5, 2.5, 3.5]", "(1.5, None)", "{'a': 1}", "np.zeros((2, 3))", "torch.zeros(2, 3)", "np.nan"]
FOREWARNED = ("00", "01", "02", "08", "09", "10", "12")


@pytest.mark.parametrize("exercise", [one for one in EXERCISES if one.lesson[:2] in FOREWARNED], ids=str)
def test_the_check_has_a_message_for_an_answer_of_another_kind(exercise):
    (name,) = exercise.names
    for kind in KINDS:
        answer = f"def {name}(*_, **__): return {kind}" if exercise.stub.startswith("def ") else f"{name} = {kind}"
        said = outcome(exercise, f"import numpy as np, torch\n{answer}")
        assert said, answer
        assert not said.startswith(("Right", "Not answered yet")), answer
