"""What every notebook starts with: its profile, its patients, their cache, and a place for its figures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from IPython.display import Image, display
from matplotlib.figure import Figure
from torch import Tensor

import emcad_lib
from emcad_lib.costs import COSTS_FILE, read_costs
from emcad_lib.data.brats import Patient, PatientError, find_patients
from emcad_lib.data.phantom import make_phantoms
from emcad_lib.data.preprocess import preprocess
from emcad_lib.data.slices import Cache, SliceDataset
from emcad_lib.data.split import SPLITS
from emcad_lib.files import CourseError, project_home, replacing, sha256, write_json
from emcad_lib.model.pvt_emcad import PVTEMCAD
from emcad_lib.model.weights import load_weights
from emcad_lib.profiles import Profile, get_profile
from emcad_lib.solved import keep, overview

DOTS_PER_INCH = 100
# What was measured once, and ships with the course: beside the library, wherever the reader's own home is.
RECORDED = Path(emcad_lib.__file__).parents[1] / "figures" / "recorded"
NOTEBOOKS = RECORDED.parents[1] / "notebooks"


@dataclass(frozen=True)
class Lesson:
    """One notebook's surroundings. Made by `begin`."""

    notebook: str
    profile: Profile
    data_dir: Path
    figures_dir: Path | None
    seed: int
    is_phantom: bool

    @property
    def runs(self) -> Path:
        """Where training runs of this profile and these patients are kept."""
        return _runs() / f"{self.profile.name}-{self._data_name}"

    @property
    def patients(self) -> list[Patient]:
        """The patients that the lesson uses: whole ones, at most as many as the profile says, sorted by name."""
        prepared = set(self.cache.names())  # what is wrong inside a file shows only when it's read
        return [patient for patient in self._found[0] if patient.name in prepared]

    @cached_property
    def _found(self) -> tuple[list[Patient], list[PatientError]]:
        if self.is_phantom:
            make_phantoms(self.data_dir, self.profile.patients)
        found, problems = find_patients(self.data_dir, need_segmentation=True)
        for problem in problems:
            print(f"Left out: {problem}")
        return found, problems

    @cached_property
    def cache(self) -> Cache:
        """The patients' slices, prepared for training. Prepared at first use, then reused.

        Raises:
            CourseError: for fewer than three people, as one each must train, validate and test.
        """
        _, problems = self._found
        folder = project_home() / "data" / "cache" / f"{self._data_name}-{self.profile.patients}"
        report = preprocess(self.data_dir, folder, limit=self.profile.patients)
        said = {str(problem) for problem in problems}
        for problem in report.problems:
            if str(problem) not in said:
                print(f"Left out: {problem}")
        cache = Cache(folder)
        if not all(cache.names(split) for split in SPLITS):
            raise CourseError(
                f"{self.data_dir}: of the patients here {len(cache.names())} can be used, and a lesson needs three "
                "different people: one to train with, one to validate, one to test. Add some to the folder."
            )
        return cache

    def example(self, image_size: int | None = None) -> tuple[Tensor, Tensor]:
        """The slice with the most tumour of the first training patient.

        Returns:
            x: (1, 3, N, N), z-scores of FLAIR, T1ce and T2; N is ``image_size``, or the profile's.
            y: (1, 1, N, N), 1 in the whole tumour, else 0.
        """
        dataset = SliceDataset(
            self.cache, "train", image_size or self.profile.image_size, patients=self.cache.names("train")[:1]
        )
        x, y = dataset.__getitems__(list(range(len(dataset))))
        richest = int(y.sum(dim=(1, 2, 3)).argmax())
        return x[richest : richest + 1], y[richest : richest + 1]

    def trained(self, of: str = "whole") -> PVTEMCAD:
        """The network with weights that the course ships, ready to predict. It has seen phantom patients only.

        Args:
            of: what it segments: "whole", the whole tumour, or "regions", all three regions.
        """
        model = load_weights(of)
        assert isinstance(model, PVTEMCAD)
        return model

    def recorded(self, name: str) -> pd.DataFrame:
        """A table of figures/recorded: numbers measured once, on more or on other patients than a lesson can use.

        Raises:
            CourseError: there is no such table.
        """
        path = RECORDED / f"{name}.csv"
        if not path.is_file():
            raise CourseError(f"{path}: there is no such recorded table. Check the name, or fetch the course again.")
        return pd.read_csv(path)

    @property
    def _data_name(self) -> str:
        if self.is_phantom:
            return "phantom"
        return f"{self.data_dir.name}-{hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:6]}"

    def solved(self, *said: str) -> None:
        """Keep what the checks of this notebook's exercises have said, in order, and print how far the course is."""
        folder = _runs() / "exercises"
        keep(folder, self.notebook, said)
        course = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
        print(overview(folder, course, self.notebook))

    def show(
        self,
        figure: Figure,
        name: str,
        data: pd.DataFrame | Mapping[str, Sequence[Any]],
        alt: str,
        runs: Sequence[str] = (),
    ) -> None:
        """Show a figure in the notebook, and keep it where the lesson keeps its figures.

        Args:
            figure: what `emcad_lib.show.plots` returns.
            name: the figure's id, unique in the course, such as ``03-receptive-fields``.
            data: the numbers behind the figure, as a table.
            alt: what the figure shows, in a sentence, for those who can't see it.
            runs: the names of the training runs that it draws on.
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
        display(Image(data=buffer.getvalue(), alt=alt))
        if self.figures_dir is not None:
            self._keep(name, buffer.getvalue(), pd.DataFrame(data), alt, list(runs))

    def _keep(self, name: str, png: bytes, data: pd.DataFrame, alt: str, runs: list[str]) -> None:
        assert self.figures_dir is not None
        picture = self.figures_dir / f"{name}.png"
        table = self.figures_dir / "data" / f"{name}.csv"
        with replacing(picture) as beside:
            beside.write_bytes(png)
        with replacing(table) as beside:
            data.to_csv(beside, index=False, float_format="%.6g", lineterminator="\n")
        record = {
            "id": name,
            "file": picture.name,
            "data": f"data/{table.name}",
            "sha256": sha256(table),
            "alt": alt,
            "notebook": self.notebook,
            "profile": self.profile.name,
            "patients": "phantom" if self.is_phantom else "a reader's own",
            "seed": self.seed,
            "runs": runs,
            "versions": versions(),
        }
        write_json(self.figures_dir / ".state" / "records" / f"{name}.json", record)


def versions() -> dict[str, str]:
    """The versions that a figure or a run depends on."""
    packages = ("torch", "timm", "numpy", "matplotlib")
    return {
        "python": platform.python_version(),
        "emcad-course": emcad_lib.__version__,  # which on Colab isn't installed as a package
        **{name: importlib.metadata.version(name) for name in packages},
    }


def begin(notebook: str, profile: str = "", data: str = "", figures: str = "", seed: int = 0) -> Lesson:
    """Start a lesson. All four settings may be left empty.

    Args:
        notebook: the notebook's name, such as ``03_multi_scale_convolution``.
        profile: ci, quick or paper; empty: the environment's EMCAD_PROFILE, else quick.
        data: a folder of BraTS patients; empty: the environment's EMCAD_DATA_DIR, else phantom patients, made here.
        figures: a folder to keep the figures in; empty: they are only shown.
        seed: of everything random in the lesson.

    Raises:
        CourseError: for an unknown profile, a folder that isn't there, or the paper profile without real patients.
    """
    chosen = get_profile(profile)
    data = data or os.environ.get("EMCAD_DATA_DIR", "")
    if not data and chosen.name == "paper":
        raise CourseError(
            "The paper profile trains on real patients. Set DATA_DIR to your BraTS folder (the README says how to get "
            "one), or choose the quick profile, which makes its own patients."
        )
    folder = Path(data).expanduser().resolve() if data else project_home() / "data" / "phantom"
    if data and not folder.is_dir():
        raise CourseError(f"{folder}: there is no such folder. DATA_DIR must name a folder of BraTS patients.")
    whose = "patients of yours" if data else "phantom patients"
    cost = read_costs(RECORDED / COSTS_FILE).get((notebook, chosen.name))
    takes = f" This notebook takes {cost.in_words}." if cost else ""
    print(f"Profile {chosen.name}: up to {chosen.patients} {whose}, {chosen.image_size} px. {_machine()}.{takes}")
    return Lesson(notebook, chosen, folder, Path(figures).resolve() if figures else None, seed, is_phantom=not data)


def _runs() -> Path:
    """The folder of all runs: the setup cell may have put it elsewhere, where it outlasts a rented machine."""
    return Path(os.environ.get("EMCAD_RUNS", "") or project_home() / "runs")


def _machine() -> str:
    """The device that a lesson computes on, and the memory that it has to spare."""
    free = psutil.virtual_memory().available
    if torch.cuda.is_available():
        name, free = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]
    elif torch.backends.mps.is_available():
        name = "Apple GPU"
    else:
        cores = os.cpu_count()
        name = f"CPU with {cores} core{'s' if cores != 1 else ''}"
    return f"{name}, {free / 1e9:.1f} GB of memory free"
