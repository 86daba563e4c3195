"""Every number that the lessons and the README state is computed again.

A number in prose carries a mark right behind it, ``506,507<!--fact:decoder_parameters_b0-->``, whose name is a function
in facts.py, or ``0.8<!--given-->`` where the text sets a number (in an exercise, say) and claims nothing. Decimals,
percentages and whole numbers from 1,000 on need one of both, unless they are part of code, of a formula, a link, a
date, a version, an arXiv number or the table of what a notebook costs. Smaller ones may carry one.
"""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = runpy.run_path(str(Path(__file__).with_name("facts.py")))["FACTS"]

OTHER_PAGES = [ROOT / "README.md", *sorted((ROOT / "emcad_lib" / "weights").glob("*.md"))]

NUMBER = r"[-−]?\d[\d,]*(?:\.\d+)?"
MARK = re.compile(rf"(?P<number>{NUMBER})?<!--\s*fact:(?P<name>[\w-]*)\s*-->")
GIVEN = re.compile(rf"{NUMBER}(?: ?%)?<!--given-->")
NEEDS_A_MARK = re.compile(
    r"(?<![\w.,-])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|(?!(?:19|20)\d\d(?!\d))\d{4,}|\d+(?= ?%))(?![\w.]*\w)"
)
NEEDS_NONE = re.compile(
    r"""
    ```.*?``` | ^\ {4,}\S.*?$ | `[^`]*`            # code
    | \$\$.*?\$\$ | \$[^$\n]+\$                    # formulas
    | \]\([^)]*\) | <https?:[^>]*> | https?://\S+  # links
    | \b\d{4}\.\d{4,5}\b                           # arXiv
    | \b\d{4}-\d{2}-\d{2}\b                        # dates
    | \b\d+(?:\.\d+){2,}\b                         # versions in three parts or more
    | ^\|\ *(?:ci|quick|paper)\b.*$               # what a profile costs: measured, see CONTRIBUTING.md
    | \b(?:[Pp]ython|[Tt]orch|PyTorch|[Tt]imm|[Vv]ersion|[Ll]icen[cs]e|BY-SA)\ \d+\.\d+\b
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


@cache
def fact(name: str) -> float:
    return FACTS[name]()


def problems(text: str) -> list[str]:
    """What is wrong with the numbers of a text."""
    found = []
    for mark in MARK.finditer(text):
        number, name = mark["number"], mark["name"]
        if number is None:
            found.append(f"{mark.group()}: no number right before it")
        elif name not in FACTS:
            found.append(f"{mark.group()}: no such fact")
        elif not agrees(number, fact(name)):
            found.append(f"{mark.group()}: it is {fact(name)}")
    prose = NEEDS_NONE.sub(" ", GIVEN.sub(" ", MARK.sub(" ", text)))
    return found + [f"{match.group()}: no mark" for match in NEEDS_A_MARK.finditer(prose)]


def agrees(printed: str, value: float) -> bool:
    """Whether a value, rounded to as many digits as are printed, is what is printed."""
    decimals = len(printed.partition(".")[2])
    number = float(printed.replace(",", "").replace("−", "-"))
    return abs(number - value) <= 0.5 * 10**-decimals * (1 + 1e-9)


def test_the_numbers_of_a_notebook_are_right(page):
    assert [problem for text in page.prose for problem in problems(text)] == []


@pytest.mark.parametrize("path", OTHER_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_numbers_of_the_readme_and_the_model_card_are_right(path):
    assert problems(path.read_text(encoding="utf-8")) == []


def test_every_fact_is_stated_somewhere():
    pages = [*OTHER_PAGES, *(ROOT / "notebooks").rglob("*.ipynb")]
    stated = {mark["name"] for path in pages for mark in MARK.finditer(path.read_text(encoding="utf-8"))}

    assert set(FACTS) - stated == set()


# ---- The rule itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "value", "right"),
    [
        ("506,507", 506507, True),
        ("506,507", 506508, False),
        ("0.506", 0.5064999, True),
        ("0.506", 0.5066, False),
        ("0.5", 0.45, True),
        ("7", 7.4, True),
        ("−0.25", -0.25, True),
        ("0.10", 0.1, True),
    ],
)
def test_a_printed_number_agrees_when_it_is_the_value_rounded(printed, value, right):
    assert agrees(printed, value) is right


@pytest.mark.parametrize(
    "text",
    [
        "It has 506,507 parameters.",
        "A Dice of 0.72.",
        "(0.365)",
        "| 0.31 |",
        "1,234.5 s",
        "1.5 GB",
        "60%",
        "60 %",
        "1440 looks",
    ],
)
def test_a_number_without_a_mark_is_found(text):
    assert len(problems(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Batch sizes 6, 16 and 25; 224 px; half a million; 1998, 2020; 7,8",
        "A toy with 0.8<!--given--> and 60 %<!--given-->, 1,000<!--given--> times",
        "| quick | 2 | 1.5 GB |",
        "`create_model(0.123)` and ```\nx = 1,000\n```",
        "    make figures  # 0.123",
        "$0.3 L + 0.70 D$ and $$x = 0.123$$",
        "[arXiv 2405.06880](https://arxiv.org/abs/2405.06880), torch 2.14, torch 2.14.1, Python 3.11, 2024-05-11",
        "Apache licence 2.00, fig3.14b, BraTS20_001.123",
    ],
)
def test_a_number_that_needs_no_mark_is_passed_over(text):
    assert problems(text) == []


def test_marks_are_checked(monkeypatch):
    monkeypatch.setitem(FACTS, "three_thousand", lambda: 3000)

    assert problems("3,000<!--fact:three_thousand-->") == []
    assert problems("3,001<!--fact:three_thousand-->") == ["3,001<!--fact:three_thousand-->: it is 3000"]
    assert problems("3,000<!--fact:unheard_of-->") == ["3,000<!--fact:unheard_of-->: no such fact"]
    assert problems("many<!--fact:three_thousand-->") == ["<!--fact:three_thousand-->: no number right before it"]
