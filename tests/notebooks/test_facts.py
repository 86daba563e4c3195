"""Every number that the lessons and the README state is computed again.

A number in prose carries a mark right behind it. ``506,507<!--fact:decoder_parameters_b0-->`` names a function in
facts.py, and ``576<!--fact:9 * 64-->`` is a sum of such names and numbers. ``0.8<!--given-->`` stands where the text
sets a number and claims nothing: in an exercise, in a toy, in a setting that nothing else in the project knows. One
mark may stand behind a size, ``56 x 56<!--fact:side_1-->``, and one ``given`` behind a list, ``3 and 4<!--given-->``.

All numbers in digits need one, but for those that only name something, see NEEDS_NONE, and but for 0 and 1, which
are nothing and all, no and yes, or the ends of a range. "1 %" needs one. And a table between ``<!--table:...-->`` and
``<!--end-->`` needs none: it's made from the settings, and test_settings.py holds it.
"""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = runpy.run_path(str(Path(__file__).with_name("facts.py")))["FACTS"]

TEACHING = ROOT / "TEACHING.md"
OTHER_PAGES = [ROOT / "README.md", TEACHING, *sorted((ROOT / "emcad_lib" / "weights").glob("*.md"))]

NUMBER = r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
LIST = rf"{NUMBER}(?:(?:,?[ ](?:and|or|to|by|x)[ ]|,[ ]|/){NUMBER})*"
NAMES = rf"{NUMBER}(?:(?:,[ ]{NUMBER})*,?[ ](?:and|or|to)[ ]{NUMBER}|(?:/{NUMBER})+)?"
SUM = re.compile(r"[\w+*/(). -]*(?:[a-z]\w*|\d \S)[\w+*/(). -]*")
MARK = re.compile(rf"(?P<numbers>{NUMBER}(?: x {NUMBER})*)?<!--\s*fact:(?P<expression>[^>]*?)\s*-->")
GIVEN = re.compile(rf"{LIST}(?: ?%)?<!--given-->")
NEEDS_A_MARK = re.compile(rf"(?<![\w.])(?<!\w[-−])(?![-−]?[01](?![\d.,]*\d| ?%)){NUMBER}(?![\w.]*\w)")
NEEDS_NONE = re.compile(
    rf"""
    <!--table:[\w-]+-->.*?<!--end-->                                  # generated
    | ```.*?``` | ^\ {{4,}}\S.*?$ | `[^`]*` | <code>.*?</code>          # code
    | \$\$.*?\$\$ | \$[^$\n]+\$                                       # formulas
    | \]\([^)]*\) | <https?:[^>]*> | https?://\S+                     # links
    | \b\d{{4}}\.\d{{4,5}}\b                                          # arXiv
    | \b(?:19|20)\d\d(?:-\d\d-\d\d)?\b                                # years and dates
    | \b\d+(?:\.\d+){{2,}}\b                                          # versions in three parts or more
    | \b(?:[Pp]ython|[Tt]orch|PyTorch|[Tt]imm|[Vv]ersion|[Ll]icen[cs]e|BY-SA)\ \d+\.\d+\b
    | ^\|\ *(?:ci|quick|paper)\ \|[^|\n]*\|[^|\n]*\|$                 # what a profile costs: measured
    | ^\#+\ .*?$ | ^(?:\|\ |\ *)\d+(?:\.\ |\ \|)                      # headings; the number of a row, of an entry
    | \[\d\d(?=[]:]|\ ·) | \b0\d(?:(?:,\ |\ and\ |\ to\ )\d\d)*\b     # notebooks: [10 · ...], 08 to 10
    | \b(?i:notebook|exercise|stage|step|seed|epoch|table|kernel|batch\ size)s?\ {NAMES}
    | \bkernels\ of\ {NAMES} | \b\d/\d/\d\b                           # the kernels 1/3/5
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


@cache
def fact(name: str) -> float:
    return FACTS[name]()


class Facts(dict):
    """The facts that a sum asks for."""

    def __missing__(self, name: str) -> float:
        return fact(name)


def value(expression: str) -> float:
    """What a fact is, or a sum of them."""
    return eval(expression, {"__builtins__": {}}, Facts())


def problems(text: str) -> list[str]:
    """What is wrong with the numbers of a text."""
    found = []
    for mark in MARK.finditer(text):
        numbers, expression = mark["numbers"], mark["expression"]
        if numbers is None:
            found.append(f"{mark.group()}: no number right before it")
        elif not SUM.fullmatch(expression):
            found.append(f"{mark.group()}: neither a fact nor a sum")
        elif not set(names(expression)) <= set(FACTS):
            found.append(f"{mark.group()}: no such fact")
        elif not all(agrees(number, value(expression)) for number in numbers.split(" x ")):
            found.append(f"{mark.group()}: it is {value(expression)}")
    prose = NEEDS_NONE.sub(" ", GIVEN.sub(" ", MARK.sub(" ", text)))
    return found + [f"{match.group()}: no mark" for match in NEEDS_A_MARK.finditer(prose)]


def names(expression: str) -> list[str]:
    """The facts in a sum of them."""
    return re.findall(r"[a-z]\w*", expression)


def agrees(printed: str, value: float) -> bool:
    """Whether a value, rounded to as many digits as are printed, is what is printed."""
    decimals = len(printed.partition(".")[2])
    number = float(printed.replace(",", "").replace("−", "-"))
    return abs(number - value) <= 0.5 * 10**-decimals * (1 + 1e-9)


def test_the_numbers_of_a_notebook_are_right(page):
    assert [problem for text in page.prose for problem in problems(text)] == []


@pytest.mark.parametrize("path", OTHER_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_numbers_of_readme_teaching_guide_and_model_card_are_right(path):
    assert problems(path.read_text(encoding="utf-8")) == []


def test_every_fact_is_stated_somewhere():
    pages = [*OTHER_PAGES, *(ROOT / "notebooks").rglob("*.ipynb")]
    marks = [mark for path in pages for mark in MARK.finditer(path.read_text(encoding="utf-8"))]
    stated = {name for mark in marks for name in names(mark["expression"])}

    assert set(FACTS) - stated == set()


def test_the_teaching_guide_gives_the_minutes_of_the_notebooks_own_tables(notebooks):
    text = TEACHING.read_text(encoding="utf-8").replace("<!--given-->", "")
    planned = dict(re.findall(r"\(notebooks/(\w+)\.ipynb\)[^|]*\| ([^|]*\d) \|", text))
    stated = {
        page.path.stem: re.search(r"^\| quick \| (under \d|\d+)", "\n".join(page.prose), flags=re.M)[1]
        for page in notebooks
    }

    assert len(planned) == 11
    assert planned == {name: stated[name] for name in planned}


def test_the_teaching_guide_names_chapters_that_there_are(notebooks):
    chapters = {page.path.name: [line.lstrip("# ") for line in page.headings] for page in notebooks}
    text = TEACHING.read_text(encoding="utf-8")
    named = re.findall(r"\(notebooks/(\w+\.ipynb)\)[:,] ((?:\*[^*]+\*(?:, )?)+)", text)

    assert len(named) == 5
    for name, titles in named:
        assert set(re.findall(r"\*([^*]+)\*", titles)) - set(chapters[name]) == set()


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
        "1 % of it",
        "1440 looks",
        "nine of 58 patients",
        "from -5 to the top",
        "24 x 1 places",
        "a factor of 5.",
        "(4 of them)",
        "batches of 16",
        "At stage 4, 32 channels are left.",
        "slices of 224 px",
        "the 20 best of `x`",
        "12 of them, but 30<!--given--> of those",
        "| ci | 5 phantoms | 1 | 1 | 1 |",
        "<!--table:profiles-->\n\n| ci | 5 phantoms |\n\n<!--end--> and 7 more <!--table:x-->2<!--end-->",
    ],
)
def test_a_number_without_a_mark_is_found(text):
    assert len(problems(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Batch sizes 6, 16 and 25; batch size 25; half a million; 1998, 2020",
        "A toy with 0.8<!--given--> and 60 %<!--given-->, 1,000<!--given--> times",
        "Of 40, 30 and 20<!--given--> voxels, 1 x 0.5 x 3<!--given--> mm; 1/4, 1/2<!--given-->; 3, 4, 3<!--given-->",
        "Between 0 and 1, or -1; notebook 10, notebooks 10 to 12, 03 to 07, [04](04.ipynb), [12 · Segment](12.ipynb)",
        "Exercise 2, stages 4 to 2, steps 5 and 6, seed 3, epochs 1, 2 and 3; Table 4",
        "Kernels 1, 3 and 5, kernels of 3, 5 and 7, 1/3/5, a 3x3 kernel, X1, B0, 3D, HD95, ResNet-18, the 75th",
        "## 3. Why 7 rather than 3?\n2. Then two\n| 00 | Start |\n| 4. crop | 0 |\n",
        "<code>max(7, 8)</code>",
        "| quick | 2 | 1.5 GB |",
        "`create_model(0.123)` and ```\nx = 1,000\n```",
        "    make figures  # 0.123",
        "$0.3 L + 0.70 D$ and $$x = 0.123$$",
        "[arXiv 2405.06880](https://arxiv.org/abs/2405.06880), torch 2.14, torch 2.14.1, Python 3.11, 2024-05-11",
        "Apache licence 2.00, fig3.14b, BraTS20_001.123",
        "<!--table:profiles-->\n\n| ci | 5 phantoms, 64 px |\n\n<!--end-->",
    ],
)
def test_a_number_that_needs_no_mark_is_passed_over(text):
    assert problems(text) == []


def test_marks_are_checked(monkeypatch):
    monkeypatch.setitem(FACTS, "three_thousand", lambda: 3000)

    assert problems("3,000<!--fact:three_thousand-->") == []
    assert problems("3,001<!--fact:three_thousand-->") == ["3,001<!--fact:three_thousand-->: it is 3000"]
    assert problems("3,000<!--fact:unheard_of-->") == ["3,000<!--fact:unheard_of-->: no such fact"]
    assert problems("3,000 x 3,000<!--fact:three_thousand-->") == []
    assert len(problems("3,000 x 56<!--fact:three_thousand-->")) == 1
    assert problems("many<!--fact:three_thousand-->") == ["<!--fact:three_thousand-->: no number right before it"]


def test_sums_are_checked(monkeypatch):
    monkeypatch.setitem(FACTS, "half_a_dozen", lambda: 6)

    assert problems("576<!--fact:9 * 64-->, 4<!--fact:(half_a_dozen + 2) / 2-->, -6<!--fact:-half_a_dozen-->") == []
    assert problems("577<!--fact:9 * 64-->") == ["577<!--fact:9 * 64-->: it is 576"]
    assert problems("12<!--fact:2 * dozen-->") == ["12<!--fact:2 * dozen-->: no such fact"]


@pytest.mark.parametrize("mark", ["9<!--fact:9-->", "9<!--fact:-->", "9<!--fact:len([9]) + 8-->"])
def test_a_mark_that_computes_nothing_or_more_than_a_sum_is_refused(mark):
    assert problems(mark) == [f"{mark}: neither a fact nor a sum"]
