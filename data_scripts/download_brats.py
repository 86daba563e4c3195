"""Download real patients: BraTS 2020 from Kaggle, or the same kind of scans from the Medical Segmentation Decathlon.

    python data_scripts/download_brats.py brats2020 --out DIR     369 patients, with your own Kaggle account
    python data_scripts/download_brats.py msd --out DIR           484 patients, without any account (CC BY-SA 4.0)

The first needs the package kagglehub, the second pooch. BraTS may be used for research and not passed on:
read the terms where you download it. Synapse, where BraTS itself is at home, has its own tool; put what it gives you
into a folder, and the course reads that.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from emcad_lib.files import CourseError, check_place, replacing
from emcad_lib.progress import progress

KAGGLE_DATASET = "awsaf49/brats20-dataset-training-validation"
KAGGLE_TRAINING = "MICCAI_BraTS2020_TrainingData"
# 5 uncompressed files of each of 369 patients, 4 of 125 more without segmentation, 17.9 MB each; and the archive.
KAGGLE_BYTES = 48_000_000_000
_KAGGLE_ACCOUNT = (
    "Make an API token on https://www.kaggle.com/settings, put it into the environment's KAGGLE_API_TOKEN or into "
    f"~/.kaggle/kaggle.json, and accept the terms of https://www.kaggle.com/datasets/{KAGGLE_DATASET}."
)

DECATHLON_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task01_BrainTumour.tar"
DECATHLON_MD5 = "240a19d752f0d9e9101544901065d872"  # as MONAI ships it
DECATHLON_FOLDER = "Task01_BrainTumour"
DECATHLON_BYTES = 15_000_000_000  # the archive, and beside it what it unpacks to


def download_brats2020(out: Path) -> Path:
    """Download Kaggle's copy of BraTS 2020 to ``out``. kagglehub goes on where an earlier call was interrupted.

    Returns:
        The folder of the training patients.

    Raises:
        CourseError: kagglehub isn't installed; Kaggle refuses, or can't be reached; there isn't enough space.
    """
    try:
        import kagglehub
        import kagglehub.exceptions
        import requests
    except ImportError as error:
        raise _not_installed("kagglehub") from error
    cache = out / "kagglehub"
    if not cache.exists():  # else some of it is there already, and the rest needs less
        check_free_space(out, KAGGLE_BYTES)
    os.environ["KAGGLEHUB_CACHE"] = str(cache.absolute())
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE_DATASET))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise CourseError(f"Kaggle refuses (status {status}). {_KAGGLE_ACCOUNT}") from error
        raise CourseError(f"Kaggle answered with an error (status {status}). Try again later.") from error
    except (kagglehub.exceptions.UnauthenticatedError, kagglehub.exceptions.CredentialError, ValueError) as error:
        raise CourseError(f"Your Kaggle account can't be used ({error}). {_KAGGLE_ACCOUNT}") from error
    except kagglehub.exceptions.DataCorruptionError as error:
        raise CourseError("What arrived from Kaggle is damaged. Run the same command again.") from error
    except requests.RequestException as error:
        problem = f"Kaggle can't be reached ({type(error).__name__})"
        raise CourseError(f"{problem}. Check the connection, and run the same command again.") from error
    training = sorted(folder.rglob(KAGGLE_TRAINING))
    if not training:
        raise CourseError(
            f"{folder}: no folder {KAGGLE_TRAINING} in it. Kaggle's copy has changed: look which folder holds the "
            f"patients now, and run make figures DATA=FOLDER with it."
        )
    return training[0]


def download_decathlon(
    out: Path, url: str = DECATHLON_URL, md5: str = DECATHLON_MD5, needed_bytes: int = DECATHLON_BYTES
) -> Path:
    """Download the Decathlon's brain tumours, check the archive, unpack it into ``out``, and delete the archive.

    Returns:
        The folder Task01_BrainTumour. If it's there already, nothing is done.

    Raises:
        CourseError: pooch isn't installed; the archive can't be had, is damaged, or holds what it should not; there
            isn't enough space.
    """
    folder, archive = out / DECATHLON_FOLDER, out / f"{DECATHLON_FOLDER}.tar"
    if folder.is_dir():
        return folder
    try:
        import pooch
        import requests
    except ImportError as error:
        raise _not_installed("pooch") from error
    check_free_space(out, needed_bytes - (archive.stat().st_size if archive.exists() else 0))
    if not (archive.exists() and _md5(archive) == md5):
        try:
            with replacing(archive) as beside:
                pooch.retrieve(url, known_hash=f"md5:{md5}", path=beside.parent, fname=beside.name, progressbar=True)
        except requests.RequestException as error:
            raise CourseError(
                f"{url} can't be had ({type(error).__name__}). Check the connection, and run again."
            ) from error
        except ValueError as error:  # pooch's word for a checksum that differs
            raise CourseError(
                f"{url}: what arrived is damaged, or isn't the known archive (MD5 {md5}). Run again."
            ) from error
    unpack(archive, folder)
    archive.unlink()
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the folder of that name from a tar archive to ``folder``, wholly or not at all.

    Raises:
        CourseError: the archive isn't readable, doesn't hold the folder, or holds something else than plain files and
            folders, or a path that leads out of the archive. Nothing is unpacked then.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            # The library's own guard against hostile archives. Early releases of 3.10 and 3.11 don't have it, and later
            # ones don't use it unless told; the course's own check comes first, and is stricter.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            members = [member for member in tar.getmembers() if _wanted(archive, member)]
            with (
                replacing(folder) as beside,
                tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as here,
            ):
                for member in progress(members, "Unpacking", unit="file"):
                    tar.extract(member, here)
                if not (Path(here) / folder.name).is_dir():
                    raise CourseError(
                        f"{archive}: there is no folder {folder.name} in this archive. Delete it, and run again."
                    )
                (Path(here) / folder.name).rename(beside)
    except tarfile.TarError as error:
        raise CourseError(f"{archive}: not a readable tar archive ({error}). Delete it, and run again.") from error


def _wanted(archive: Path, member: tarfile.TarInfo) -> bool:
    """Whether to unpack a member: hidden files, which Mac OS puts into archives, are left out.

    Raises:
        CourseError: for a member that no archive of images has.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise CourseError(
            f"{archive}: it holds {member.name!r}, a link or a path that leads out of it. Nothing was unpacked; "
            "don't trust this archive, and delete it."
        )
    return not any(part.startswith(".") for part in path.parts)


def check_free_space(out: Path, needed_bytes: int) -> None:
    """Refuse to start what can't end well.

    Raises:
        CourseError: fewer than ``needed_bytes`` are free where ``out`` is, or will be.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise CourseError(
            f"{out}: this needs {needed_bytes / 1e9:.0f} GB, and {free / 1e9:.1f} GB are free. "
            "Free some space, or choose a folder on another disk with --out."
        )


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _not_installed(package: str) -> CourseError:
    return CourseError(f"{package} is not installed. Install it with: pip install {package}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 when all went well."""
    parser = argparse.ArgumentParser(description="Download real patients for the course.")
    parser.add_argument(
        "dataset", choices=("brats2020", "msd"), help="BraTS 2020 from Kaggle, or the Decathlon's Task01"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to put them")
    arguments = parser.parse_args(argv)
    try:
        check_place(arguments.out, "--out", is_folder=True)
        folder = (
            download_brats2020(arguments.out) if arguments.dataset == "brats2020" else download_decathlon(arguments.out)
        )
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{arguments.out}: the patients can't be put here ({error}). Give another --out.", file=sys.stderr)
        return 1
    print(f'The patients are in {folder}\nUse some of them, on any machine: make figures DATA="{folder}"')
    print(f'Use all of them, for days on a GPU: make figures PROFILE=paper DATA="{folder}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
