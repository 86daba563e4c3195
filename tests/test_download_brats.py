"""Downloading real patients, from a server of our own: what is right, what is damaged, and what means harm."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import kagglehub
import pytest
import requests

from emcad_lib.data.brats import find_patients, read_scan
from emcad_lib.files import CourseError

SCRIPT = Path(__file__).parents[1] / "data_scripts" / "download_brats.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("download_brats", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Handler(SimpleHTTPRequestHandler):
    requested: list[str] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        if self.path.startswith("/cut/"):  # promise more than what comes
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of a server that gives out the files of ``tmp_path / "served"``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    _Handler.requested.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def archive(tmp_path, tiny_patients, server) -> Path:
    """A tiny archive like the Decathlon's, on the server."""
    tiny_patients(tmp_path / "made", 2, "decathlon")
    path = tmp_path / "served" / "Task01_BrainTumour.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "made" / "Task01_BrainTumour", "./Task01_BrainTumour")
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_the_decathlon_is_downloaded_checked_and_unpacked_and_the_course_reads_it(script, archive, server, tmp_path):
    out = tmp_path / "out"

    folder = script.download_decathlon(out, f"{server}/{archive.name}", md5(archive), needed_bytes=1000)

    assert folder == out / "Task01_BrainTumour"
    patients, problems = find_patients(out, need_segmentation=True)
    assert [patient.name for patient in patients] == ["BRATS_001", "BRATS_002"]
    assert problems == []
    assert read_scan(patients[0]).images.shape == (4, 48, 48, 24)
    assert [path.name for path in out.iterdir()] == ["Task01_BrainTumour"]  # no archive, nothing half done
    assert not list(out.rglob("._*"))


def test_a_second_call_downloads_nothing(script, archive, server, tmp_path):
    download = partial(script.download_decathlon, tmp_path, f"{server}/{archive.name}", md5(archive), needed_bytes=1000)

    assert download() == download()
    assert _Handler.requested == ["/Task01_BrainTumour.tar"]


def test_an_archive_that_is_there_already_is_unpacked_and_not_downloaded_again(script, archive, server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / archive.name).write_bytes(archive.read_bytes())

    script.download_decathlon(tmp_path / "out", f"{server}/{archive.name}", md5(archive), needed_bytes=1000)

    assert _Handler.requested == []
    assert len(find_patients(tmp_path / "out")[0]) == 2


def test_another_checksum_is_refused_and_leaves_nothing(script, archive, server, tmp_path):
    expected = md5(archive)
    content = bytearray(archive.read_bytes())
    content[5000] ^= 1
    archive.write_bytes(content)

    with pytest.raises(CourseError, match=f"damaged, or isn't the known archive .MD5 {expected}"):
        script.download_decathlon(tmp_path / "out", f"{server}/{archive.name}", expected, needed_bytes=1000)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("path", "reason"), [("missing.tar", "HTTPError"), ("cut/off.tar", "Chunked|Connection")])
def test_a_missing_or_interrupted_download_says_so_and_leaves_nothing(script, server, tmp_path, path, reason):
    with pytest.raises(CourseError, match=f"{path} can't be had .({reason})"):
        script.download_decathlon(tmp_path / "out", f"{server}/{path}", "0" * 32, needed_bytes=1000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_server_that_is_not_there_is_no_traceback(script, tmp_path):
    with pytest.raises(CourseError, match="can't be had .ConnectionError"):
        script.download_decathlon(tmp_path / "out", "http://127.0.0.1:9/x.tar", "0" * 32, needed_bytes=1000)


def hostile(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile("../escaped.txt", size=4),
        hostile("Task01_BrainTumour/../../escaped.txt", size=4),
        hostile("/tmp/escaped.txt", size=4),
        hostile("Task01_BrainTumour/link", type=tarfile.SYMTYPE, linkname="../.."),
        hostile("Task01_BrainTumour/link", type=tarfile.SYMTYPE, linkname="imagesTr"),
        hostile("Task01_BrainTumour/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        hostile("Task01_BrainTumour/pipe", type=tarfile.FIFOTYPE),
        hostile("Task01_BrainTumour/device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ],
    ids=lambda member: f"{member.name} {member.linkname}".strip(),
)
def test_an_archive_that_means_harm_is_refused_before_anything_is_unpacked(script, archive, server, tmp_path, member):
    with tarfile.open(archive, "a") as tar:
        tar.addfile(member, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CourseError, match="Nothing was unpacked") as caught:
        script.download_decathlon(tmp_path / "out", f"{server}/{archive.name}", md5(archive), needed_bytes=1000)

    assert repr(member.name) in str(caught.value)
    new = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert new == [tmp_path / "out", tmp_path / "out" / archive.name]


def test_an_archive_without_the_folder_is_refused(script, tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(hostile("Task02_Heart/dataset.json", size=2), io.BytesIO(b"{}"))

    with pytest.raises(CourseError, match="there is no folder Task01_BrainTumour in this archive. Delete it"):
        script.unpack(tmp_path / "other.tar", tmp_path / "Task01_BrainTumour")
    assert [path.name for path in tmp_path.iterdir()] == ["other.tar"]


def test_what_is_no_archive_is_refused(script, tmp_path):
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)

    with pytest.raises(CourseError, match="page.tar: not a readable tar archive"):
        script.unpack(tmp_path / "page.tar", tmp_path / "Task01_BrainTumour")
    assert [path.name for path in tmp_path.iterdir()] == ["page.tar"]


def test_too_little_space_is_said_before_the_download(script, archive, server, tmp_path):
    with pytest.raises(CourseError, match=r"needs 1000000000 GB, and [0-9.]+ GB are free"):
        script.download_decathlon(
            tmp_path / "not" / "yet" / "there", f"{server}/{archive.name}", md5(archive), needed_bytes=10**18
        )
    assert _Handler.requested == []
    assert not (tmp_path / "not").exists()


def kaggle_answers(monkeypatch, answer) -> None:
    """Let kagglehub return or raise ``answer``."""

    def dataset_download(handle: str) -> str:
        assert handle == "awsaf49/brats20-dataset-training-validation"
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(kagglehub, "dataset_download", dataset_download)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "")


def refusal(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return kagglehub.exceptions.KaggleApiHTTPError("no", response=response)


def test_kaggles_training_patients_are_found_without_those_for_validation(script, tmp_path, tiny_patients, monkeypatch):
    version = tmp_path / "out" / "kagglehub" / "datasets" / "awsaf49" / "brats20" / "versions" / "1"
    tiny_patients(version, 2, "kaggle", ".nii")
    tiny_patients(version / "BraTS2020_ValidationData" / "MICCAI_BraTS2020_ValidationData", 1, first=9)
    kaggle_answers(monkeypatch, version)

    folder = script.download_brats2020(tmp_path / "out")

    assert folder == version / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData"
    assert len(find_patients(folder, need_segmentation=True)[0]) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(401), "Kaggle refuses .status 401.*KAGGLE_API_TOKEN.*accept the terms"),
        (refusal(403), "Kaggle refuses .status 403.*KAGGLE_API_TOKEN.*accept the terms"),
        (refusal(500), "status 500.*Try again later"),
        (kagglehub.exceptions.UnauthenticatedError(), "account can't be used.*KAGGLE_API_TOKEN"),
        (ValueError("Invalid Kaggle credentials file"), "Invalid Kaggle credentials file.*KAGGLE_API_TOKEN"),
        (kagglehub.exceptions.DataCorruptionError(), "damaged. Run the same command again"),
        (requests.ConnectionError(), "can't be reached .ConnectionError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_at_kaggle_says_what_to_do(script, tmp_path, monkeypatch, answer, message):
    kaggle_answers(monkeypatch, answer)
    (tmp_path / "kagglehub").mkdir()

    with pytest.raises(CourseError, match=message):
        script.download_brats2020(tmp_path)


def test_a_changed_copy_at_kaggle_is_noticed(script, tmp_path, monkeypatch):
    kaggle_answers(monkeypatch, tmp_path)
    (tmp_path / "kagglehub").mkdir()

    with pytest.raises(CourseError, match="no folder MICCAI_BraTS2020_TrainingData in it.*make figures DATA="):
        script.download_brats2020(tmp_path)


@pytest.mark.parametrize(("package", "dataset"), [("kagglehub", "brats2020"), ("pooch", "msd")])
def test_a_package_that_is_not_installed_is_named_with_the_way_to_install_it(
    script, tmp_path, monkeypatch, capsys, package, dataset
):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there

    assert script.main([dataset, "--out", str(tmp_path)]) == 1
    assert f"pip install {package}" in capsys.readouterr().err


def test_the_command_line_says_where_the_patients_are_and_how_to_use_them(script, archive, tmp_path, capsys):
    (tmp_path / "Task01_BrainTumour").mkdir()

    assert script.main(["msd", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f'make figures DATA="{tmp_path / "Task01_BrainTumour"}"' in said  # which needs no GPU
    assert f'make figures PROFILE=paper DATA="{tmp_path / "Task01_BrainTumour"}"' in said


def test_the_command_line_ends_with_1_and_one_message_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("x")

    run = subprocess.run(
        [sys.executable, str(SCRIPT), "msd", "--out", str(tmp_path / "file" / "out")], capture_output=True, text=True
    )

    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert f"{tmp_path / 'file'} is a file and no folder. Give --out another place." in run.stderr


def test_the_known_checksum_is_the_one_that_monai_ships(script):
    from monai.apps import DecathlonDataset

    assert DecathlonDataset.md5["Task01_BrainTumour"] == script.DECATHLON_MD5
    assert DecathlonDataset.resource["Task01_BrainTumour"] == script.DECATHLON_URL
