"""Tables in the prose that state settings or costs, made from the code and the records that they tell of.

In a notebook, the README or the teaching guide such a table stands between two marks,

    <!--table:profiles-->

    | ... |

    <!--end-->

and ``python -m emcad_lib.setup_cell`` writes it anew. `test_settings.py` notices one that is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nbformat
import numpy as np

from emcad_lib.costs import COSTS_FILE, Cost, read_costs
from emcad_lib.data.labels import BRATS_2020, REGIONS, region_mask
from emcad_lib.files import CourseError
from emcad_lib.profiles import PROFILES
from emcad_lib.show.plots import REGION_NAMES

BLOCK = re.compile(r"(?P<mark><!--table:(?P<name>[\w-]+)-->).*?(?P<end><!--end-->)", re.DOTALL)
# In the teaching guide, a row's link to a notebook, and the minutes in the cell right behind it.
PLANNED = re.compile(r"(\(notebooks/(\w+)\.ipynb\)[^|\n]*\| )(?:under 1|\d+(?:<!--given-->)?)(?= \|)")


def renew(text: str, home: Path) -> str:
    """The text with each marked table as it is now.

    Args:
        text: markdown.
        home: the course's folder, whose notebooks and recorded costs the tables tell of.

    Raises:
        CourseError: there is no table of that name.
    """

    def table(block: re.Match[str]) -> str:
        if block["name"] not in TABLES:
            raise CourseError(f"There is no table {block['name']!r}. Choose one of: {', '.join(TABLES)}.")
        return f"{block['mark']}\n\n{TABLES[block['name']](home)}\n\n{block['end']}"

    return BLOCK.sub(table, text)


def renew_minutes(text: str, home: Path) -> str:
    """The teaching guide with the minutes of today behind its links to notebooks.

    Raises:
        CourseError: it names a notebook whose minutes aren't recorded.
    """
    minutes = {cost.notebook: cost.in_short for cost in _quick(home)}

    def planned(row: re.Match[str]) -> str:
        if row[2] not in minutes:
            raise CourseError(f"{row[2]}: its minutes aren't in figures/recorded/{COSTS_FILE}.")
        return row[1] + minutes[row[2]] + ("" if minutes[row[2]] in ("under 1", "1") else "<!--given-->")

    return PLANNED.sub(planned, text)


def course(home: Path) -> str:
    """The map of the course as in notebook 00, with the minutes of the quick profile."""
    cells = nbformat.read(home / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    rows = []
    for cost in _quick(home):
        number = cost.notebook.partition("_")[0]
        row = re.search(rf"^\| {number} \| \[?([^]|]*?)(?:\]\([^)]*\))? \| (.*) \|$", prose, flags=re.M)
        if row is None:
            raise CourseError(f"00_start_here.ipynb: its map has no row for {cost.notebook}. Write one.")
        rows.append((number, f"[{row[1]}](notebooks/{cost.notebook}.ipynb)", row[2], cost.in_short))
    return _table(("", "notebook", "the question it answers", "minutes"), rows)


def profiles(home: Path) -> str:
    """What each profile does, and what the whole course costs in it."""
    ci, quick, paper = PROFILES.values()
    rows = [
        (
            ci.name,
            f"a check: {ci.patients} phantoms, {ci.image_size} px, {ci.epochs} short epochs",
            *_altogether(home, ci.name),
            f"{ci.disk_gb:g} GB",
        ),
        (
            f"{quick.name} (default)",
            f"{quick.patients} phantoms, {quick.image_size} px, {quick.epochs} epochs, everything live",
            *_altogether(home, quick.name),
            f"{quick.disk_gb:g} GB",
        ),
        (
            paper.name,
            f"real BraTS 2020, {paper.image_size} px, {paper.epochs} epochs, {len(paper.seeds)} seeds; needs a GPU",
            *_altogether(home, paper.name),
            f"{paper.disk_gb:g} GB, and 48<!--fact:kaggle_gb--> GB for BraTS 2020 from Kaggle",
        ),
    ]
    return _table(("profile", "what it does", "minutes on two cores", "memory", "disk"), rows)


def regions(_: Path) -> str:
    """Which tissues make which region."""
    tissues = {"necrosis": BRATS_2020.necrosis, "oedema": BRATS_2020.oedema, "enhancing": BRATS_2020.enhancing}
    bits = BRATS_2020.regions(np.array(list(tissues.values())))
    questions = {
        "whole": "how far does it reach?",
        "core": "what would a surgeon take out?",
        "enhancing": "where is it active?",
    }
    rows = []
    for region in REGIONS:
        inside = [tissue for tissue, within in zip(tissues, region_mask(bits, region), strict=True) if within]
        rows.append((REGION_NAMES[region], ", ".join(inside), questions[region]))
    return _table(("region", "made of", "the question it answers"), rows)


def cards(_: Path) -> str:
    """Which options of ``emcad_lib.train`` suit which machine."""
    quick, paper = PROFILES["quick"], PROFILES["paper"]
    middle, large = quick.batch_sizes[1:]
    finer = f"--image-size {paper.image_size} --batch-size {large}"
    start = f"--pretrained --learning-rate {paper.learning_rate:g} --mixed-precision"
    rows = [
        (f"two processor cores: {_short(quick.encoder)}, {quick.image_size} px", f"`--batch-size {middle}`"),
        (f"Colab's T4: {_short(quick.encoder)}, {paper.image_size} px", f"`{finer} {start} fp16`"),
        (
            f"a card of 4 GB: {_short('pvt_v2_b2')}, {paper.image_size} px",
            f"`--encoder pvt_v2_b2 {finer} --accumulate 2 {start} bf16`",
        ),
    ]
    return _table(("your machine", "for example"), rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "course": course, "profiles": profiles, "regions": regions, "cards": cards,
}  # fmt: skip


def _quick(home: Path) -> list[Cost]:
    """What each notebook costs in the quick profile, in the order of the course."""
    recorded = read_costs(home / "figures" / "recorded" / COSTS_FILE)
    return [cost for (_, profile), cost in sorted(recorded.items()) if profile == "quick"]


def _altogether(home: Path, profile: str) -> tuple[str, str]:
    """Minutes of all notebooks together, and the memory of the one that takes most."""
    recorded = read_costs(home / "figures" / "recorded" / COSTS_FILE)
    costs = [cost for cost in recorded.values() if cost.profile == profile]
    minutes = [cost.minutes for cost in costs if cost.minutes is not None]
    takes = f"about {sum(minutes):.0f}" if len(minutes) == len(costs) else "days on one GPU (estimated)"
    return takes, max(costs, key=lambda cost: cost.memory_gb).memory


def _short(encoder: str) -> str:
    """``pvt_v2_b0`` as people call it: B0."""
    return encoder.rpartition("_")[2].upper()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, *rows]
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0].replace("|  |", "| |"), "|" + "---|" * len(header), *written[1:]])
