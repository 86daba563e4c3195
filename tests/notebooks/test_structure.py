"""Every notebook has the form that the course promises: read, not run."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import statistics
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from emcad_lib.compared import LOOSE, STORED
from emcad_lib.costs import COSTS_FILE, cost_table, read_costs
from emcad_lib.figures import figure_names
from emcad_lib.files import read_json, sha256
from emcad_lib.profiles import PROFILES
from emcad_lib.setup_cell import badges, setup_cell

ROOT = Path(__file__).parents[2]

COURSE = [
    "00_start_here", "01_explore_brats", "02_preprocess", "03_multi_scale_convolution",
    "04_channel_and_spatial_attention", "05_attention_gate", "06_upconvolution_and_heads", "07_pvt_emcad", "08_train",
    "09_batch_sizes", "10_dice_and_loss_curves", "11_what_a_dice_score_means", "12_segment_a_patient",
    "13_beyond_the_paper",
]  # fmt: skip
BLOCKS = {"MSDC", "MSCB", "CAB", "SAB", "MSCAM", "LGAG", "EUCB"}
PARAMETERS = """\
# Leave these empty: the README says what they are for.
PROFILE = ""
DATA_DIR = ""
FIGURES_DIR = ""
SEED = 0"""
BEGIN = """\
from emcad_lib.lesson import begin

lesson = begin("{name}", PROFILE, DATA_DIR, FIGURES_DIR, SEED)"""
COSTS = read_costs(ROOT / "figures" / "recorded" / COSTS_FILE)
MACHINE = re.compile(r"(?<![\w.~:/-])/(work|root|home|tmp|Users)\b")
WIDGET = "application/vnd.jupyter.widget-view+json"


def texts(cell):
    """What a code cell printed, wrote and showed as text."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield content


def calls(page, function):
    """The calls of a function in a page's code, such as "lesson.show"."""
    for cell in page.code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
                yield node


# ---- The course ------------------------------------------------------------------------------------------------------


def test_the_course_has_its_fourteen_notebooks(notebooks):
    assert [str(page) for page in notebooks] == COURSE


def test_every_notebook_has_its_solutions_and_no_solutions_are_left_over(all_solutions):
    assert [str(page) for page in all_solutions] == [f"{name}_solutions" for name in COURSE]


def test_every_block_is_built_in_a_notebook(notebooks):
    tags = {tag for page in notebooks for cell in page.cells for tag in cell.metadata.get("tags", [])}

    assert BLOCKS <= {tag.removeprefix("defines:") for tag in tags if tag.startswith("defines:")}


def test_a_cell_that_says_which_block_it_defines_defines_it(notebook):
    for cell in notebook.code:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("defines:"):
                names = {node.name for node in ast.parse(cell.source).body if isinstance(node, ast.ClassDef)}
                assert tag.removeprefix("defines:") in names


def test_a_definition_that_stands_in_two_notebooks_is_the_same_in_both(notebooks):
    versions = defaultdict(lambda: defaultdict(list))
    for page in notebooks:
        for name, node in lesson_definitions(page).items():
            versions[name][ast.dump(node)].append(str(page))

    assert {name: list(places.values()) for name, places in versions.items() if len(places) > 1} == {}


def lesson_definitions(page):
    """Functions and classes that a page ends up with before its exercises, by name."""
    found = {}
    for cell in page.cells:
        if cell.cell_type == "markdown" and re.search(r"^## Exercises", cell.source, flags=re.M):
            break
        if cell.cell_type == "code":
            found |= {
                node.name: node
                for node in ast.parse(cell.source).body
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }
    return found


# ---- How a notebook opens and closes ---------------------------------------------------------------------------------


def test_it_opens_with_its_number_title_badges_and_question(page):
    title, _, rest = page.cells[0].source.partition("\n")
    links, _, question = rest.strip().partition("\n")

    assert page.cells[0].cell_type == "markdown"
    assert re.fullmatch(rf"# {str(page)[:2]} · \S.*", title)
    assert links == badges(page.path)
    assert len(question.split()) >= 10


def test_it_says_what_one_learns_what_one_needs_and_what_it_costs(notebook):
    cell = notebook.cells[1]
    goals, _, needs = cell.source.partition("**You need**")

    assert cell.cell_type == "markdown"
    assert goals.startswith("**You will be able to**")
    assert 3 <= len(re.findall(r"^- \S", goals, flags=re.M)) <= 5
    assert len(needs.split()) >= 5
    assert re.findall(r"^\|.*\|$", needs, flags=re.M) == cost_table(COSTS, str(notebook)).splitlines()


def test_what_it_costs_is_recorded_for_each_notebook_and_profile(notebooks):
    assert list(COSTS) == [(str(page), profile) for page in notebooks for profile in PROFILES]
    for (notebook, profile), cost in COSTS.items():
        assert cost.basis == "estimated" if profile == "paper" else cost.basis in ("measured", "earlier"), notebook
        assert cost.yardstick or profile == "paper", notebook


def test_its_setup_cell_is_the_one_of_the_whole_course(page):
    assert page.code[0].source == setup_cell()
    assert page.code[0].metadata.tags == ["setup"]
    assert len(page.tagged("setup")) == 1


def test_its_parameters_are_the_four_literals_of_the_template(page):
    assert page.code[1].source == PARAMETERS
    assert page.code[1].metadata.tags == ["parameters"]
    assert len(page.tagged("parameters")) == 1


def test_its_lesson_begins_right_after(notebook):
    assert notebook.code[2].source == BEGIN.format(name=notebook)


def test_it_closes_with_what_you_saw_the_exercises_and_the_way_on(notebook):
    chapters = [heading for heading in notebook.headings if heading.startswith("## ")]

    assert chapters[-3:] == ["## What you saw", "## Exercises", "## On"]


def test_its_last_cell_links_to_its_neighbours(notebook):
    last = notebook.cells[-1].source
    place = COURSE.index(str(notebook))

    for neighbour in COURSE[max(place - 1, 0) : place] + COURSE[place + 1 : place + 2]:
        assert f"]({neighbour}.ipynb)" in last


def exercises(page):
    """The titles of a page's exercises."""
    return [match[1] for heading in page.headings if (match := re.fullmatch(r"##+ \d+(?:\.| ·) (.+)", heading))]


def test_it_has_three_exercises_or_more_each_with_a_hint_and_a_stub_and_solutions_to_all(notebook, all_solutions):
    solved = {str(page): exercises(page) for page in all_solutions}
    after = notebook.cells[next(i for i, cell in enumerate(notebook.cells) if "## Exercises" in cell.source) :]

    assert len(exercises(notebook)) >= 3
    assert solved.get(f"{notebook}_solutions") == exercises(notebook)
    assert sum(cell.source.count("<details>") for cell in after) >= len(exercises(notebook))
    assert sum(cell.cell_type == "code" for cell in after) >= len(exercises(notebook))
    assert f"(solutions/{notebook}_solutions.ipynb)" in "".join(cell.source for cell in after)


def test_behind_its_exercises_a_cell_shows_how_far_one_is(notebook):
    checks = [call for cell in notebook.code for call in re.findall(r"^print\((check_\w+\(.*\))\)$", cell.source, re.M)]

    assert len(checks) >= 3
    assert [ast.unparse(call) for call in calls(notebook, "lesson.solved")] == [f"lesson.solved({', '.join(checks)})"]
    assert "lesson.solved(" in notebook.code[-1].source


# ---- How it reads ----------------------------------------------------------------------------------------------------


def test_it_has_40_to_110_cells(notebook):
    assert 40 <= len(notebook.cells) <= 110


def test_its_code_cells_are_short(notebook):
    lengths = [len(cell.source.splitlines()) for cell in notebook.code]

    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 40


def test_it_has_more_words_than_code(notebook):
    prose = sum(len(text.split()) for text in notebook.prose)
    own = notebook.code[1:]  # the setup cell is the whole course's

    assert prose > sum(len(cell.source.split()) for cell in own)
    assert prose >= 600


def test_its_headings_skip_no_level(page):
    levels = [len(heading.split()[0]) for heading in page.headings]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_its_links_lead_somewhere(page):
    broken = [
        target
        for text in page.prose
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"https?://|#", target) and not (page.path.parent / target.partition("#")[0]).is_file()
    ]

    assert broken == []


# ---- What is stored --------------------------------------------------------------------------------------------------


def test_it_is_stored_as_run_once_from_top_to_bottom(page):
    counts = [cell.execution_count for cell in page.code]

    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed_or_warned(page):
    bad = [
        (number, output.get("ename") or output.text[:200])
        for number, cell in enumerate(page.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error" or output.get("name") == "stderr"
    ]

    assert bad == []


def test_nothing_in_it_names_a_place_on_somebodys_machine(page):
    found = [
        (number, match.string[max(match.start() - 30, 0) : match.end() + 30])
        for number, cell in enumerate(page.cells)
        for text in (cell.source, *(texts(cell) if cell.cell_type == "code" else ()))
        if (match := MACHINE.search(text))
    ]

    assert found == []


def test_it_can_be_read_on_github(page):
    assert "widgets" not in page.notebook.metadata
    assert WIDGET not in page.path.read_text(encoding="utf-8")
    assert page.path.stat().st_size <= 1_500_000
    assert page.notebook.nbformat == 4
    assert page.notebook.metadata.kernelspec.name == "python3"


def test_it_leaves_no_cell_out_when_it_is_checked(page):
    leave_out = re.compile("skip|raises-exception|ignore-output")
    tags = {tag for cell in page.cells for tag in cell.metadata.get("tags", [])}

    assert not [tag for tag in tags if leave_out.search(tag)]
    assert not [cell.source for cell in page.code if re.search(r"NBVAL_|^\s*[%!]", cell.source, flags=re.M)]


def test_the_checks_of_its_exercises_are_folded_away(page):
    checks = [cell for cell in page.code if re.search(r"^def check_", cell.source, flags=re.M)]

    for cell in checks:
        assert "check" in cell.metadata.get("tags", []), cell.source
        assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source
    assert page.tagged("check") == checks


def test_it_has_three_outputs_or_more_that_never_change_and_they_are_stored(notebook):
    checked = notebook.tagged("nbval-check-output")
    empty = [cell.source for cell in checked if not "".join(texts(cell)).strip()]

    assert len(checked) >= 3
    assert empty == []


# ---- Figures and widgets ---------------------------------------------------------------------------------------------


def test_it_shows_two_figures_or_more_under_its_own_number(notebook):
    names = figure_names(notebook.path)

    assert len(names) >= 2
    assert all(re.fullmatch(rf"{str(notebook)[:2]}(-[a-z0-9]+)+", name) for name in names)


def test_no_two_figures_of_the_course_have_one_name(notebooks):
    names = [name for page in notebooks for name in figure_names(page.path)]

    assert sorted(names) == sorted(set(names))


def test_each_figure_comes_with_its_numbers_and_a_sentence_for_those_who_cannot_see_it(notebook):
    for call in calls(notebook, "lesson.show"):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        assert "data" in given
        assert not isinstance(given["alt"], ast.Constant) or len(given["alt"].value.split()) >= 5


def test_each_figure_is_stored_as_a_picture_with_its_description(notebook):
    pictures = [
        output.metadata.get("image/png", {}).get("alt", "")
        for cell in notebook.code
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]

    assert len(pictures) >= len(figure_names(notebook.path))
    assert all(pictures)


def test_each_widget_stands_alone_with_a_static_twin_beside_it(notebook):
    widgets = [
        place for place, cell in enumerate(notebook.code) if re.search(r"widgets\.(interactive|explore_)", cell.source)
    ]

    assert widgets
    for place in widgets:
        assert "widget" in notebook.code[place].metadata.get("tags", [])
        neighbours = notebook.code[place - 2 : place + 2]  # its render function may stand between
        assert any("lesson.show(" in cell.source for cell in neighbours), notebook.code[place].source


# ---- figures/ as it is committed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest():
    return read_json(ROOT / "figures" / "manifest.json")


def test_the_manifest_lists_the_figures_of_the_notebooks_in_order(manifest, notebooks):
    made = [(str(page), name) for page in notebooks for name in figure_names(page.path)]

    assert [(record["notebook"], record["id"]) for record in manifest["figures"]] == made


def test_each_record_of_the_manifest_is_whole(manifest):
    keys = {"id", "file", "data", "sha256", "alt", "notebook", "profile", "patients", "seed", "runs", "versions"}

    assert isinstance(manifest["figures"], list)
    for record in manifest["figures"]:
        assert set(record) == keys
        assert (record["profile"], record["seed"]) == (manifest["profile"], manifest["seed"])
        assert isinstance(record["runs"], list)
        assert set(record["versions"]) >= {"python", "torch", "emcad-course"}
        assert record["patients"] == "phantom"  # pictures of real patients must not be passed on
        assert not MACHINE.search(json.dumps(record))


def test_every_picture_and_table_of_the_manifest_is_there_and_no_other(manifest):
    figures = ROOT / "figures"
    listed = {record[part] for record in manifest["figures"] for part in ("file", "data")}
    there = {str(path.relative_to(figures)) for path in (*figures.glob("*.png"), *figures.glob("data/*"))}

    assert there == listed
    assert len(manifest["figures"]) >= 14
    for record in manifest["figures"]:
        assert sha256(figures / record["data"]) == record["sha256"]
        assert (figures / record["file"]).read_bytes().startswith(b"\x89PNG")


def test_the_numbers_of_every_figure_and_of_no_other_are_stored_for_the_profile_ci(notebooks):
    made = [name for page in notebooks for name in figure_names(page.path)]

    assert sorted(path.name for path in STORED.iterdir()) == sorted(f"{name}.csv" for name in made)
    assert sum(path.stat().st_size for path in STORED.iterdir()) < 1_000_000


def test_only_figures_that_are_there_are_granted_a_looser_comparison(notebooks):
    made = [name for page in notebooks for name in figure_names(page.path)]

    assert [pattern for pattern in LOOSE if not fnmatch.filter(made, pattern)] == []
