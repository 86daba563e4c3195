"""Run every notebook, in order, and write figures/ and its manifest.

    python -m emcad_lib.figures [--profile ci|quick|paper] [--data DIR] [--out figures]

A notebook whose text, library, patients and settings haven't changed since its figures were written is not run again:
a second call is quick, and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from emcad_lib.files import CourseError, check_place, project_home, read_json, sha256, write_json
from emcad_lib.lesson import RECORDED, Lesson, begin, versions
from emcad_lib.meter import Meter
from emcad_lib.progress import progress
from emcad_lib.stored import store_outputs


def figure_names(notebook: Path) -> list[str]:
    """The ids of the figures that a notebook shows, read from its code: second argument of each lesson.show(...).

    Raises:
        CourseError: for an id that isn't written out there.
    """
    names = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or "lesson.show(" not in cell.source:
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "lesson.show":
                name = node.args[1] if len(node.args) > 1 else None
                if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                    raise CourseError(
                        f"{notebook.name}: write the figure's id out, second in {ast.unparse(node)[:60]}..."
                    )
                names.append(name.value)
    return names


def run_notebook(notebook: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook strictly.

    Raises:
        CourseError: for a parameter that the notebook doesn't have, a cell that fails, or a cell that never ran.
    """
    unknown = set(parameters) - set(papermill.inspect_notebook(notebook))
    if unknown:
        raise CourseError(f"{notebook.name} has no parameter {', '.join(sorted(unknown))}. Add it to its parameters.")
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters=parameters,
            cwd=notebook.parent,
            progress_bar=False,
            kernel_name="python3",
            extra_arguments=["--log-level=CRITICAL"],  # or else it warns that its traffic on this machine is plain
        )
    except PapermillExecutionError as error:
        raise CourseError(
            f"{notebook.name}: {_named(error.source)} failed with {error.ename}: {error.evalue}\n"
            f"The notebook as far as it came: {executed}"
        ) from error
    except DeadKernelError as error:
        raise CourseError(
            f"{notebook.name}: its kernel died, most likely because memory ran out. Close other programs, or take a "
            f"smaller profile. The notebook as far as it came: {executed}"
        ) from error
    for cell in nbformat.read(executed, as_version=4).cells:
        # sys.exit(0) counts as a good end with papermill, wherever it stands.
        if cell.cell_type == "code" and any(output.output_type == "error" for output in cell.outputs):
            raise CourseError(f"{notebook.name}: {_named(cell.source)} ended the notebook before its end. Mend it.")
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            raise CourseError(f"{notebook.name}: {_named(cell.source)} never ran. Look at {executed}.")


def _named(source: str) -> str:
    return f"the cell that begins with `{source.strip().partition(chr(10))[0]}`"


def fingerprint(notebook: Path, lesson: Lesson) -> str:
    """A hash of all that decides what a notebook's figures look like: code, settings, and the data that it names."""
    digest = hashlib.sha256()
    cells = nbformat.read(notebook, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    digest.update(json.dumps(code).encode())
    for source in sorted(Path(__file__).parent.rglob("*")):
        if source.suffix in (".py", ".safetensors"):
            digest.update(sha256(source).encode())
    for table in sorted(RECORDED.rglob("*.csv")):
        names = table.relative_to(RECORDED).with_suffix("").parts  # a recorded run is named by its folder
        if any(name in source for name in names for source in code):
            digest.update(sha256(table).encode())
    digest.update(lesson.cache.hash.encode())
    digest.update(repr((lesson.profile, lesson.seed, versions())).encode())
    return digest.hexdigest()


def is_unchanged(state: Path, key: str, out: Path) -> bool:
    """Whether a notebook's figures in ``out`` are still the ones written for this fingerprint."""
    if not state.is_file():
        return False
    known = read_json(state)
    return known["fingerprint"] == key and all(
        (out / record["file"]).is_file()
        and (out / record["data"]).is_file()
        and sha256(out / record["data"]) == record["sha256"]
        for record in known["figures"]
    )


def make_figures(
    notebooks: Sequence[Path], out: Path, profile: str = "", data: str = "", seed: int = 0, force: bool = False
) -> list[dict[str, Any]]:
    """Run the notebooks and write their figures and ``manifest.json`` to ``out``.

    Returns:
        the manifest's list of figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    lesson = begin("figures", profile, data, str(out), seed)
    source = "phantom patients" if lesson.is_phantom else str(lesson.data_dir)
    print(f"==> Patients: up to {lesson.profile.patients}, {source}; profile {lesson.profile.name}")
    print(f"==> {len(lesson.cache.names())} patients are prepared")
    print(f"==> Running {len(notebooks)} notebooks")
    figures: list[dict[str, Any]] = []
    seconds: dict[str, float | None] = {}
    with progress(label="Notebooks", total=len(notebooks), unit="notebook") as bar:
        for notebook in notebooks:
            bar.set_postfix_str(notebook.stem)
            state = out / ".state" / f"{notebook.stem}.json"
            key = fingerprint(notebook, lesson)
            started = time.monotonic()
            if not force and is_unchanged(state, key, out):
                records = read_json(state)["figures"]
                seconds[notebook.stem] = None
            else:
                with Meter() as meter:
                    records = _run_one(notebook, out, lesson, data)
                write_json(state, {"fingerprint": key, "figures": records, "spent": asdict(meter.spent)})
                seconds[notebook.stem] = time.monotonic() - started
            figures += records
            bar.update()
    _remove_old(out, figures)
    write_json(out / "manifest.json", {"profile": lesson.profile.name, "seed": seed, "figures": figures})
    _print_summary(figures, seconds, out)
    if not lesson.is_phantom:
        print(
            "==> They show patients of yours. The data terms of BraTS don't allow passing them on: don't commit them."
        )
    return figures


def _run_one(notebook: Path, out: Path, lesson: Lesson, data: str) -> list[dict[str, Any]]:
    records = [out / ".state" / "records" / f"{name}.json" for name in figure_names(notebook)]
    for record in records:
        record.unlink(missing_ok=True)
    parameters = {
        "PROFILE": lesson.profile.name,
        "DATA_DIR": str(lesson.data_dir) if data else "",
        "FIGURES_DIR": str(out.resolve()),
        "SEED": lesson.seed,
    }
    run_notebook(notebook, out / ".state" / "executed" / notebook.name, parameters)
    missing = [record.stem for record in records if not record.is_file()]
    if missing:
        raise CourseError(
            f"{notebook.name} ran to its end without making its figures {', '.join(missing)}. Show each in every run."
        )
    return [read_json(record) for record in records]


def _remove_old(out: Path, figures: list[dict[str, Any]]) -> None:
    """Remove figures that an earlier manifest lists and that no notebook makes any more."""
    if not (out / "manifest.json").is_file():
        return
    kept = {name for record in figures for name in (record["file"], record["data"])}
    for record in read_json(out / "manifest.json")["figures"]:
        for name in {record["file"], record["data"]} - kept:
            (out / name).unlink(missing_ok=True)


def _print_summary(figures: list[dict[str, Any]], seconds: dict[str, float | None], out: Path) -> None:
    for name, spent in seconds.items():
        count = sum(record["notebook"] == name for record in figures)
        took = "unchanged" if spent is None else f"{spent:7.1f} s"
        print(f"    {name:34s} {took:>12s}   {count} figure{'s' if count != 1 else ''}")
    print(f"==> {len(figures)} figures in {out}/, listed in {out}/manifest.json")


def _store(notebooks: Sequence[Path], executed: Path, profile: str) -> None:
    """Store the outputs of the notebooks, which have been executed, and of their solutions, which are run for it."""
    for notebook in notebooks:
        store_outputs(notebook, executed / notebook.name)
    for solutions in sorted((project_home() / "notebooks" / "solutions").glob("*.ipynb")):
        print(f"==> {solutions.stem}")
        run_notebook(solutions, executed / solutions.name, {"PROFILE": profile})
        store_outputs(solutions, executed / solutions.name)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m emcad_lib.figures", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--profile", default="", help="ci, quick (the default) or paper")
    parser.add_argument("--data", default="", metavar="DIR", help="a folder of BraTS patients; without it: phantoms")
    parser.add_argument("--out", default="figures", type=Path, metavar="DIR", help="where to write (default: figures)")
    parser.add_argument("--seed", default=0, type=int, help="of everything random (default: 0)")
    parser.add_argument("--force", action="store_true", help="run every notebook, unchanged or not")
    parser.add_argument(
        "--store", action="store_true", help="also store the outputs in notebooks/, as they are committed"
    )
    options = parser.parse_args(argv)
    notebooks = sorted((project_home() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    try:
        if not notebooks:
            raise CourseError(f"{project_home() / 'notebooks'}: no notebooks here. Run this in the course's folder.")
        if options.store and (options.data or os.environ.get("EMCAD_DATA_DIR")):
            raise CourseError(
                "--store is for phantom patients: pictures of real ones must not be committed. Leave out --data, and "
                "unset EMCAD_DATA_DIR."
            )
        check_place(options.out, "--out", is_folder=True)
        make_figures(notebooks, options.out, options.profile, options.data, options.seed, options.force)
        if options.store:
            _store(notebooks, options.out / ".state" / "executed", options.profile)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
