"""Tables and lists that state settings say what the code has.

A table between ``<!--table:...-->`` and ``<!--end-->`` is made by emcad_lib/tables.py. Whatever else states a setting,
in words or in another table, is held here: each claim is put together from the setting, so it changes with it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from emcad_lib import costs, load_weights, setup_cell, tables
from emcad_lib.data.augment import STANDARD
from emcad_lib.data.brats import MODALITIES, find_patients
from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON, REGIONS, region_mask
from emcad_lib.data.slices import Cache
from emcad_lib.evaluate.metrics import dice_by_definition
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import ModelConfig
from emcad_lib.model.weights import REFERENCE_WEIGHTS
from emcad_lib.profiles import PROFILES
from emcad_lib.segment import segment_patient
from emcad_lib.show.plots import REGION_NAMES
from emcad_lib.train.config import TrainConfig, parse_arguments

ROOT = Path(__file__).parents[2]
CARD = REFERENCE_WEIGHTS.parent / "README.md"
PAGES = [ROOT / "README.md", ROOT / "TEACHING.md", ROOT / "CONTRIBUTING.md", CARD]
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TRAINING = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
MODEL = ModelConfig()
QUICK, PAPER = PROFILES["quick"], PROFILES["paper"]


def text(name):
    """The prose of a page: of a notebook, by its number, or of a file."""
    if name.endswith(".md"):
        return (ROOT / name).read_text(encoding="utf-8")
    (path,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def rows(prose, header):
    """The cells of the table with this header, row by row."""
    table = re.search(re.escape(header) + r"\n\|[-|]+\|\n((?:\|.*(?:\n|$))+)", prose)
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table[1].splitlines()]


# ---- Generated tables ------------------------------------------------------------------------------------------------


def test_the_tables_of_a_notebook_are_as_the_settings_and_costs_of_today_make_them(page):
    assert [tables.renew(prose, ROOT) for prose in page.prose] == page.prose


def test_the_tables_of_the_readme_and_the_teaching_guide_are_too():
    assert tables.renew(text("README.md"), ROOT) == text("README.md")
    assert tables.renew_minutes(text("TEACHING.md"), ROOT) == text("TEACHING.md")


def test_each_table_that_can_be_made_stands_somewhere(notebooks):
    prose = text("README.md") + "".join("".join(page.prose) for page in notebooks)

    assert sorted(block["name"] for block in tables.BLOCK.finditer(prose)) == sorted(tables.TABLES)


@pytest.mark.parametrize("setting", ["patients", "image_size", "epochs", "batch_sizes", "learning_rate", "seeds"])
def test_another_setting_of_a_profile_makes_another_table(setting, monkeypatch):
    others = {"patients": 7, "image_size": 160, "epochs": 9, "batch_sizes": (4, 8, 12), "learning_rate": 0.003}
    changed = {
        name: dataclasses.replace(profile, **{setting: others.get(setting, (0, 1))})
        for name, profile in PROFILES.items()
    }
    before = [tables.TABLES[name](ROOT) for name in ("profiles", "cards")]
    monkeypatch.setattr(tables, "PROFILES", changed)

    assert [tables.TABLES[name](ROOT) for name in ("profiles", "cards")] != before


def test_other_regions_make_another_table(monkeypatch):
    monkeypatch.setattr(tables, "region_mask", lambda bits, region: np.ones(len(bits), dtype=bool))

    assert "| enhancing tumour | necrosis, oedema, enhancing |" in tables.regions(ROOT)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two notebooks with their recorded costs."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures" / "recorded").mkdir(parents=True)
    (tmp_path / "figures" / "recorded" / costs.COSTS_FILE).write_text(
        "notebook,profile,minutes,memory_gb,basis,yardstick,note\n"
        "00_start_here,ci,0.3,1,measured,0.06,\n"
        '00_start_here,quick,0.4,1,measured,0.06,"and more, once"\n'
        "00_start_here,paper,0.4,1,estimated,,\n"
        "01_x,ci,1.9,2.1,measured,0.06,\n"
        "01_x,quick,5.3,3.2,measured,0.06,\n"
        "01_x,paper,,8,estimated,,hours\n"
    )
    table = "| | notebook | why |\n|---|---|---|\n| 00 | Start | Why (and how)? |\n| 01 | [X](01_x.ipynb) | What? |"
    notebook = new_notebook(cells=[new_markdown_cell("# 00 · Start"), new_markdown_cell(table)])
    nbformat.write(notebook, tmp_path / "notebooks" / "00_start_here.ipynb")
    monkeypatch.setenv("EMCAD_HOME", str(tmp_path))
    return tmp_path


def test_the_map_takes_its_questions_from_notebook_00_and_its_minutes_from_the_record(course):
    assert tables.course(course).splitlines()[2:] == [
        "| 00 | [Start](notebooks/00_start_here.ipynb) | Why (and how)? | under 1 |",
        "| 01 | [X](notebooks/01_x.ipynb) | What? | 5 |",
    ]


def test_a_profile_costs_the_minutes_of_all_notebooks_and_the_memory_of_the_largest(course):
    ci, quick, paper = [line.split(" | ")[2:4] for line in tables.profiles(course).splitlines()[2:]]

    assert (ci, quick, paper) == (["about 2", "2.5 GB"], ["about 6", "3.5 GB"], ["days on one GPU (estimated)", "8 GB"])


def test_one_command_brings_the_pages_up_to_date_and_leaves_the_rest_as_it_is(course):
    (course / "README.md").write_text("Before\n\n<!--table:course-->\nold\n<!--end-->\n\nafter\n")
    guide = "| first | [00](notebooks/00_start_here.ipynb), in pairs | 3<!--given--> | Why? |\n"
    (course / "TEACHING.md").write_text(guide + "| | [01](notebooks/01_x.ipynb) | under 1 | 9 |\n")

    for _ in range(2):  # the second time, there is nothing to renew
        setup_cell.update_pages(course)

        readme = f"Before\n\n<!--table:course-->\n\n{tables.course(course)}\n\n<!--end-->\n\nafter\n"
        assert (course / "README.md").read_text() == readme
        assert (course / "TEACHING.md").read_text() == (
            "| first | [00](notebooks/00_start_here.ipynb), in pairs | under 1 | Why? |\n"
            "| | [01](notebooks/01_x.ipynb) | 5<!--given--> | 9 |\n"
        )


def test_it_renews_the_tables_in_notebooks_and_writes_no_notebook_in_vain(course):
    notebook = course / "notebooks" / "01_x.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 01 · X\n\n<!--table:cards-->old<!--end-->")]), notebook)

    setup_cell.update(notebook, course / "no.csv")
    written = notebook.stat().st_mtime_ns
    setup_cell.update(notebook, course / "no.csv")

    assert tables.cards(course) in nbformat.read(notebook, as_version=4).cells[0].source
    assert notebook.stat().st_mtime_ns == written


def test_a_table_that_nobody_can_make_is_refused(course):
    with pytest.raises(CourseError, match="There is no table 'cots'. Choose one of: course, "):
        tables.renew("<!--table:cots--><!--end-->", course)
    with pytest.raises(CourseError, match="02_y: its minutes aren't in figures/recorded/"):
        tables.renew_minutes("[02](notebooks/02_y.ipynb) | 3<!--given--> |", course)


def test_the_options_for_a_machine_are_ones_that_the_training_takes_and_are_those_of_its_row():
    for machine, options in rows(tables.cards(ROOT), "| your machine | for example |"):
        config = parse_arguments(["--cache", "c", "--runs", "r", "--name", "n", *options.strip("`").split()])

        assert machine.endswith(f"B{config.encoder[-1]}, {config.image_size} px")
        assert config.batch_size in QUICK.batch_sizes


# ---- Other tables ----------------------------------------------------------------------------------------------------


WITHOUT_SETTINGS = {
    "| | |": "figures of the README; the model card, below",
    "| | comes from | knows | doesn't know |": "05: ideas",
    "| | notebook | the question it answers |": "00: the README's map is made from it",
    "| | parameters | multiply-adds |": "06: formulas",
    "| | parameters | multiply-adds at 224<!--fact:px_paper--> px |": "03, 04: facts",
    "| a larger batch means | so |": "09: ideas",
    "| choice | empty truth, empty prediction | empty truth, something found |": "11: below",
    "| convolution, $C \\to C/2$ | one filter sees | weights |": "05: formulas and facts",
    "| function | what it changes | what the network can't rely on any more |": "02: below",
    "| hour | notebook | runs, minutes | ask first |": "teaching guide: its minutes are renewed",
    "| kept in an MSCAM, and what needs it | units |": "07: facts, and below",
    "| layout | files of one patient |": "README: below",
    "| logit | $-\\infty$ | $-2$ | 0 | 2<!--given--> | $\\infty$ |": "06: facts, and below",
    "| minutes | what to show | ask first |": "teaching guide: a plan",
    "| modality | what is bright | what it is good for |": "01: ideas",
    "| network | trained on | scored on | Dice is counted | whole tumour | core | enhancing |": "README: facts",
    "| part | weights |": "03: formulas",
    "| patients | Dice, whole tumour, per patient in 3D |": "model card: facts",
    "| patients | prepared, GB | preparing on two cores, minutes | an epoch on two cores, hours | on a T4, minutes | "
    "on eight A100, minutes |": "README: facts",
    "| patients | whole tumour | core | enhancing |": "model card: facts",
    "| profile | minutes | memory |": "test_structure.py",
    "| release | files of one patient |": "00: below",
    "| step | why | what comes out |": "02: facts, and below",
    "| week | notebooks | afterwards they can | homework |": "teaching guide: a plan",
    "| what happens | what to do |": "teaching guide: advice",
    "| what you see | what to do |": "test_troubleshooting.py",
}


def test_every_other_table_is_known_to_state_no_setting_or_to_be_held_by_a_test(notebooks):
    prose = [path.read_text(encoding="utf-8") for path in PAGES]
    prose += ["\n\n".join(page.prose) for page in notebooks]
    headers = {
        header
        for words in prose
        for header in re.findall(r"^(\|.*\|)\n\|(?:-+\|)+$", tables.BLOCK.sub("", words), flags=re.M)
    }

    assert headers == set(WITHOUT_SETTINGS)


@pytest.mark.parametrize(("where", "header"), [("README.md", "layout"), ("00", "release")])
def test_the_layouts_of_patients_folders_are_ones_that_are_found(where, header, tmp_path):
    until, since, decathlon = rows(text(where), f"| {header} | files of one patient |")

    for folder, (release, files), convention in (("a", until, BRATS_2020), ("b", since, BRATS_2023)):
        name, *others, plain, packed = re.findall("`([^`]+)`", files)
        assert (plain, packed) == (".nii", ".nii.gz")
        for place, suffix in (("plain", plain), ("packed", packed)):
            words = [name.replace("<case>", "P1"), *(f"P1{word}" for word in others)]
            for word in words:
                (tmp_path / folder / place).mkdir(parents=True, exist_ok=True)
                (tmp_path / folder / place / f"{word}{suffix}").touch()
            (patient,), problems = find_patients(tmp_path / folder / place, need_segmentation=True)
            assert problems == []
            assert patient.convention == convention
            order = [word.partition("P1")[2] for word in words]
            given = {modality: path.name.partition(".")[0] for modality, path in patient.images.items()}
            assert [given[m] for m in ("flair", "t1", "t1ce", "t2")] == [f"P1{word}" for word in order[:4]]
        assert release.split()[:2] == convention.name.split()[:2]

    images, labels = re.findall("`([^`]+)`", decathlon[1])
    for file, shape in ((images, (4, 4, 4, len(MODALITIES))), (labels, (4, 4, 4))):
        (tmp_path / "c" / file).parent.mkdir(parents=True)
        nib.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4)).to_filename(tmp_path / "c" / file)
    (patient,), problems = find_patients(tmp_path / "c", need_segmentation=True)
    assert (patient.convention, problems) == (DECATHLON, [])


def test_the_table_of_augmentations_names_those_that_training_uses():
    table = rows(text("02"), "| function | what it changes | what the network can't rely on any more |")

    assert tuple(name.strip("`") for name, *_ in table) == STANDARD == TRAINING["variations"]


def test_the_table_of_preparing_says_what_a_cache_holds(tiny_cache):
    table = {step: out for step, _, out in rows(text("02"), "| step | why | what comes out |")}
    cache = Cache(tiny_cache)
    name = cache.names()[0]

    assert cache.images(name).itemsize == 1
    assert table["4. quantise"] == "one byte per voxel"
    assert TRAINING["regions"] == ("whole",)
    assert "whole tumour" in text("02").partition("| 6. target |")[2].partition("\n")[0]
    arrays = [path for path in (tiny_cache / "patients" / name).iterdir() if path.suffix == ".npy"]
    assert table["8. cache"] == f"{NUMBERS[len(arrays)]} files per patient"


def test_the_table_of_choices_is_what_the_definitions_count():
    empty, some = np.zeros((1, 2, 2), dtype=bool), np.ones((1, 2, 2), dtype=bool)
    counted = [dice_by_definition([found], [empty]) for found in (empty, some)]
    choices = ("slice_empty1", "slice_empty0", "slice_tumour", "slice_published")
    expected = [["-" if np.isnan(score[name]) else f"{score[name]:g}" for score in counted] for name in choices]

    header = "| choice | empty truth, empty prediction | empty truth, something found |"
    assert [row[1:] for row in rows(text("11"), header)] == expected
    assert expected[0] == [f"{score['patient']:g}" for score in counted]  # BraTS


# ---- Settings in words -----------------------------------------------------------------------------------------------


def kernels(joint=", ", last=" and "):
    *some, largest = map(str, MODEL.kernel_sizes)
    return joint.join(some) + last + largest


def squares():
    each = [size**2 for size in MODEL.kernel_sizes]
    return f"For {kernels('/', '/')} the sum of the $k^2$ is ${' + '.join(map(str, each))} = {sum(each)}$"


def with_oedema(region):
    inside = region_mask(BRATS_2020.regions(np.array([BRATS_2020.oedema])), region)[0]
    return "with" if inside else "without"


THRESHOLD = inspect.signature(segment_patient).parameters["threshold"].default
FALLING = (TRAINING["schedule"], TRAINING["warm_up"] > 0)
CARD_PAGE = "emcad_lib/weights/README.md"
CLAIMS = [
    ("02", lambda: f"{count(STANDARD).capitalize()} functions, each against one bad habit"),
    ("03", lambda: f"the paper takes $e = {MODEL.expansion}$"),
    ("03", lambda: f"let us have {said(MODEL.expansion, {2: 'twice'})} as many"),
    ("03", squares),
    ("06", lambda: f"| tumour, at threshold {THRESHOLD}<!--given-->? |"),
    ("07", lambda: f"| in each of the {count(MODEL.kernel_sizes)} branches: "),
    ("07", lambda: f"all is {said(MODEL.expansion, {2: 'twice'})} as wide, {NUMBERS[MODEL.expansion]} units"),
    ("08", lambda: said(FALLING, {("cosine", True): "rises for the first updates and then falls along a cosine"})),
    ("09", lambda: said(FALLING, {("cosine", True): "a short rise, then down to 0, which is the default"})),
    ("12", lambda: f"the **whole tumour**, {with_oedema('whole')} the oedema"),
    ("12", lambda: f"the **tumour core**, {with_oedema('core')} the oedema"),
    ("12", lambda: f"{count(REFINED).capitalize()} steps need no label and no training"),
    ("12", lambda: f"trained on {shipped_planes()} slices"),
    ("12", lambda: f"every {said(REFINED['every'], {3: 'third'})} slice is enough"),
    ("12", lambda: said(REFINED["flip"], {True: "Each slice is predicted twice, once with its columns in reverse"})),
    ("12", lambda: f"mixed {said(REFINED['adapt'], {0.5: 'half and half'})} with those of this patient's slices"),
    ("12", lambda: f"smaller than a {said(REFINED['crumbs'], {0.1: 'tenth'})} of the largest are dropped"),
    ("13", lambda: f"(the baseline does, for {said(TRAINING['drop_path'], {0.1: 'one in ten'})})"),
    ("README.md", lambda: f"quick: on the first {QUICK.patients} of them"),
    ("README.md", lambda: f"# on up to {PAPER.patients} patients, for days"),
    ("CONTRIBUTING.md", lambda: f"more than {said(costs.TOLERANCE, {2: 'twice'})} its recorded minutes"),
    ("CONTRIBUTING.md", lambda: f"minutes and\n{NUMBERS[int(costs.FLOOR_MINUTES)]} more"),
    (CARD_PAGE, lambda: f"EMCAD decoder, kernels {kernels()}, one output"),
    (CARD_PAGE, lambda: f"learning rate `{TRAINING['learning_rate']:g}` with a {TRAINING['schedule']}, batches of"),
    (CARD_PAGE, lambda: f"`{trained_with('slices-per-epoch')}` slices per epoch from all three planes"),
    (CARD_PAGE, lambda: f"| input | z-scores inside the brain, {shipped_planes()} slices"),
]


def said(value, words):
    """A value in the words that the page has for it; a value that it has no word for is a KeyError."""
    return words[value]


def count(things):
    return NUMBERS[len(things)]


def shipped_planes():
    *some, last = json.loads(load_weights().metadata["planes"])
    return f"{', '.join(some)} and {last}"


def trained_with(option):
    """An option of the command in the model card that the shipped weights were trained by."""
    return re.search(rf"--{option} (\S+)", CARD.read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize(("where", "claim"), CLAIMS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_page_says_of_a_setting_in_words_is_so(where, claim):
    assert claim() in text(where)


def test_wherever_three_batch_sizes_are_named_they_are_those_of_the_profiles(notebooks):
    named = {
        tuple(map(int, sizes))
        for words in (*(path.read_text(encoding="utf-8") for path in PAGES), *(text(str(n)[:2]) for n in notebooks))
        for sizes in re.findall(r"batch sizes (\d+), (\d+) (?:and|or) (\d+)", words)
    }

    assert named == {profile.batch_sizes for profile in PROFILES.values()}


def test_the_three_regions_that_the_lists_explain_are_all_that_there_are():
    names = re.findall(r"^- the \*\*(.+?)\*\*", text("12"), flags=re.M)

    assert names == [REGION_NAMES[region] for region in REGIONS]


def test_the_check_of_the_machine_asks_for_what_the_course_needs():
    """Notebook 00 judges memory and Python by numbers of its own: those of the README's table and of pyproject.toml."""
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    (code,) = (cell.source for cell in cells if "memory_needed = " in cell.source)
    recorded = costs.read_costs(ROOT / "figures" / "recorded" / costs.COSTS_FILE).values()
    needed = {name: int(gb) for name, gb in re.findall(r'"(\w+)": (\d+)', code)}
    largest = {name: max(cost.memory_gb for cost in recorded if cost.profile == name) for name in PROFILES}
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]

    assert needed.keys() == PROFILES.keys()
    assert all(largest[name] <= needed[name] < largest[name] + 1 for name in PROFILES)
    assert f"(3, {oldest})" in code
    assert f"3.{oldest} is needed" in code
