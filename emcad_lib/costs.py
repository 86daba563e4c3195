"""What each notebook costs: minutes and memory, measured while it runs, recorded in a table, told to the reader.

    python -m emcad_lib.costs FIGURES_DIR

writes what the last run of `emcad_lib.figures` into that folder has measured into the table, which is
figures/recorded/notebook_costs.csv. Its columns:

- notebook, profile;
- minutes: from the start to the end of its kernel, by the clock; empty where nobody can say. The patients are made and
  prepared before;
- memory_gb: the most that the kernel and its workers held at once;
- basis: *measured*; *earlier*, measured before there was this table, and rounded (under a minute stands as 0.9); or
  *estimated*;
- yardstick: seconds of processor time that a fixed piece of work took on that machine, so that a slower one can be
  compared with it;
- note: what the numbers leave open.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from emcad_lib.files import CourseError, project_home, read_json, replacing
from emcad_lib.meter import Spent, yardstick
from emcad_lib.profiles import PROFILES

COSTS_FILE = "notebook_costs.csv"
HEADER = "| profile | minutes | memory |"
# A notebook may need so many times what is recorded, and a minute more: kernels start slowly on a cold disk, and a
# notebook that meets no training of an earlier one makes its own.
TOLERANCE = 2.0
FLOOR_MINUTES = 1.0


@dataclass(frozen=True)
class Cost:
    """A row of the table; see the module's head."""

    notebook: str
    profile: str
    minutes: float | None
    memory_gb: float
    basis: str
    yardstick: float | None = None
    note: str = ""

    @property
    def in_short(self) -> str:
        """The minutes alone; empty where nobody can say."""
        if self.minutes is None:
            return ""
        return "under 1" if self.minutes < 1 else f"{self.minutes:.0f}"

    @property
    def in_table(self) -> str:
        """The minutes as a notebook's header tells them."""
        return ", ".join(filter(None, [self.in_short, self.note])) + self._doubt

    @property
    def in_words(self) -> str:
        """Minutes and memory as a lesson's first line tells them."""
        if self.minutes is None:
            takes = self.note
        elif round(self.minutes) <= 1:
            takes = "under a minute" if self.minutes < 1 else "about a minute"
        else:
            takes = f"about {self.minutes:.0f} minutes"
        return f"{takes}, and up to {self.memory}{self._doubt}"

    @property
    def memory(self) -> str:
        """The memory, rounded up to half a GB."""
        return f"{math.ceil(2 * self.memory_gb) / 2:g} GB"

    @property
    def _doubt(self) -> str:
        return " (estimated)" if self.basis == "estimated" else ""


def excess(spent: Spent, cost: Cost, slowness: float = 1.0) -> str:
    """What a run took beyond its allowance, in a sentence; empty when it kept to it.

    The time that counts is the processor's and what the notebook waits without need of a processor. The clock's would
    also hold what the machine does besides: continuous integration runs two notebooks at a time, on whatever machine.

    Args:
        spent: by the run.
        cost: what is recorded.
        slowness: how many times as long as the machine of the record this one takes for the same work.
    """
    counted = spent.processor_minutes + spent.idle_minutes
    allowed = math.inf if cost.minutes is None else TOLERANCE * cost.minutes * max(slowness, 1) + FLOOR_MINUTES
    over = []
    if counted > allowed:
        over.append(f"{counted:.1f} minutes (recorded: {cost.minutes:g}; allowed here: {allowed:.1f})")
    if spent.memory_gb > TOLERANCE * cost.memory_gb:
        over.append(f"{spent.memory_gb:.1f} GB (recorded: {cost.memory_gb:g}; allowed: {TOLERANCE * cost.memory_gb:g})")
    if not over:
        return ""
    return (
        f"{cost.notebook} took {' and '.join(over)} in the profile {cost.profile}. Make it cheaper; or, if it has to "
        f"cost that much, measure it again for figures/recorded/{COSTS_FILE} (CONTRIBUTING says how)."
    )


def read_costs(table: Path) -> dict[tuple[str, str], Cost]:
    """The recorded costs, by notebook and profile. Without the table: none."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        return {(row["notebook"], row["profile"]): _cost(row) for row in csv.DictReader(file)}


def _cost(row: Mapping[str, str]) -> Cost:
    minutes, measure = (float(row[name]) if row[name] else None for name in ("minutes", "yardstick"))
    memory = float(row["memory_gb"])
    return Cost(row["notebook"], row["profile"], minutes, memory, row["basis"], measure, row["note"])


def cost_table(costs: Mapping[tuple[str, str], Cost], notebook: str) -> str:
    """Markdown: a notebook's costs in each profile."""
    rows = [cost for (name, _), cost in costs.items() if name == notebook]
    return "\n".join([HEADER, "|---|---|---|", *(f"| {row.profile} | {row.in_table} | {row.memory} |" for row in rows)])


def record(figures: Path, table: Path, measure: float) -> list[str]:
    """Write what the runs behind a folder of figures have measured into the table.

    Args:
        figures: the folder; its runs were of phantom patients.
        table: is made or changed.
        measure: the `yardstick` of this machine, on which they ran.

    Returns:
        the notebooks.

    Raises:
        CourseError: where nothing was measured, or on patients of a reader's own.
    """
    nothing = f"{figures}: no notebook has run into this folder yet. Run: python -m emcad_lib.figures --out {figures}"
    if not (figures / "manifest.json").is_file():
        raise CourseError(nothing)
    manifest = read_json(figures / "manifest.json")
    if any(figure["patients"] != "phantom" for figure in manifest["figures"]):
        raise CourseError(f"{figures}: these notebooks ran on patients of yours. Record a run without --data.")
    costs = read_costs(table)
    measured = []
    for state in sorted((figures / ".state").glob("*.json")):
        if "spent" not in (known := read_json(state)):
            raise CourseError(f"{state}: this run wasn't measured. Run the notebooks again with --force.")
        spent, key = Spent(**known["spent"]), (state.stem, manifest["profile"])
        old = costs.get(key, Cost(*key, None, 0.0, "measured"))
        costs[key] = replace(
            old,
            minutes=round(spent.minutes, 2),
            memory_gb=round(spent.memory_gb, 2),
            basis="measured",
            yardstick=round(measure, 3),
        )
        measured.append(state.stem)
    if not measured:
        raise CourseError(nothing)
    order = list(PROFILES)
    with replacing(table) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cost)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(costs[key]) for key in sorted(costs, key=lambda key: (key[0], order.index(key[1]))))
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m emcad_lib.costs", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("figures", type=Path, metavar="DIR", help="where emcad_lib.figures has written to")
    options = parser.parse_args(argv)
    try:
        names = record(options.figures, project_home() / "figures" / "recorded" / COSTS_FILE, yardstick())
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"==> {len(names)} notebooks recorded. Now python -m emcad_lib.setup_cell tells the readers.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
