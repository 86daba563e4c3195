"""Files are whole or not there, whatever happens while they are written."""

import errno
import os
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from emcad_lib import files
from emcad_lib.files import CourseError, check_place, read_json, remove_leftovers, replacing, sha256, write_json


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_half(path, error):
    """Fail in the middle of writing a file."""
    with replacing(path) as beside:
        beside.write_text("half")
        raise error


def write_half_a_folder(path, error):
    """Fail in the middle of writing a folder."""
    with replacing(path) as beside:
        beside.mkdir()
        (beside / "scan.txt").write_text("half")
        raise error


def test_a_file_is_replaced_only_when_the_block_ends(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert everything_in(tmp_path) == ["note.txt"]


def test_folders_above_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "note.txt") as beside:
        beside.write_text("new")

    assert (tmp_path / "a" / "b" / "note.txt").read_text() == "new"


def test_the_temporary_name_is_hidden_and_keeps_the_suffix(tmp_path):
    with replacing(tmp_path / "scan.nii.gz") as beside:
        beside.touch()
        assert beside.name.startswith(".")
        assert beside.suffixes[-2:] == [".nii", ".gz"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())

    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["note.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "patient"
    folder.mkdir()
    (folder / "left_over.txt").write_text("old")

    with replacing(folder) as beside:
        beside.mkdir()
        (beside / "scan.txt").write_text("new")
        assert everything_in(folder) == ["left_over.txt"]

    assert everything_in(tmp_path) == ["patient", "patient/scan.txt"]


def test_an_error_in_the_block_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "patient"
    folder.mkdir()
    (folder / "scan.txt").write_text("old")

    with pytest.raises(ZeroDivisionError):
        write_half_a_folder(folder, ZeroDivisionError())

    assert (folder / "scan.txt").read_text() == "old"
    assert everything_in(tmp_path) == ["patient", "patient/scan.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_plain_words_and_leaves_the_old_file(tmp_path, number):
    path = tmp_path / "note.txt"
    path.write_text("old")

    with pytest.raises(CourseError, match=r"note\.txt: the disk is full"):
        write_half(path, OSError(number, os.strerror(number)))

    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["note.txt"]


def test_a_full_disk_is_recognised_by_its_words_where_the_error_has_no_number(tmp_path):
    # This is how safetensors' own writer says it; it has cleaned up by then, so the disk isn't full any more.
    with pytest.raises(CourseError, match="the disk is full"), replacing(tmp_path / "weights.safetensors"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "error",
    [
        OSError("1000000 requested and 262128 written"),  # NumPy
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),  # PyTorch
    ],
)
def test_a_full_disk_is_recognised_on_the_disk_where_the_error_does_not_name_it(tmp_path, monkeypatch, error):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))

    with pytest.raises(CourseError, match="the disk is full"), replacing(tmp_path / "array.npy"):
        raise error


@pytest.mark.parametrize("error", [OSError("1000000 requested and 262128 written"), PermissionError(13, "denied")])
def test_another_error_stays_what_it_is_while_there_is_space(tmp_path, error):
    with pytest.raises(type(error), match=str(error.args[-1])), replacing(tmp_path / "array.npy"):
        raise error


def test_a_place_below_a_file_is_named_with_what_to_do_and_the_file_stays(tmp_path):
    (tmp_path / "mine").write_text("precious")

    with pytest.raises(CourseError, match=r"mine/runs/note\.txt: can't be written .*Choose another place"):
        write_json(tmp_path / "mine" / "runs" / "note.txt", 1)

    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_folder_that_takes_no_files_is_named_with_what_to_do(tmp_path, number):
    with pytest.raises(CourseError, match=r"note\.txt: can't be written .*Choose another place"):
        with replacing(tmp_path / "note.txt") as beside:
            raise OSError(number, os.strerror(number), str(beside))


def test_an_error_about_another_file_is_not_taken_for_one_about_the_place(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "note.txt"):
        (tmp_path / "another.txt").read_text()


@pytest.mark.parametrize(
    ("place", "is_folder", "says"),
    [
        ("mine/a/t.csv", False, r"t\.csv: .*mine is a file and no folder\. Give --out another place"),
        ("mine/a", True, r"mine/a: .*mine is a file and no folder\. Give --out another place"),
        ("mine", True, r"mine: this is a file and no folder\. Give --out another place"),
        ("folder", False, r"folder: this is a folder\. Give --out the name of a file in it"),
    ],
)
def test_a_file_where_a_folder_is_needed_is_named_before_the_work_with_the_setting(tmp_path, place, is_folder, says):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "folder").mkdir()

    with pytest.raises(CourseError, match=says):
        check_place(tmp_path / place, "--out", is_folder)
    check_place(tmp_path / "mine", "--out")  # a file, to be replaced
    check_place(tmp_path / "new" / "folder", "--out", is_folder=True)


def test_an_error_of_the_course_in_the_block_stays_what_it_is_even_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))

    with pytest.raises(CourseError, match="^the patient has no head$"), replacing(tmp_path / "array.npy"):
        raise CourseError("the patient has no head")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_process_killed_while_it_writes_leaves_the_old_content(tmp_path, kind):
    path = tmp_path / "kept"
    note = path if kind == "file" else path / "note.txt"
    note.parent.mkdir(exist_ok=True)
    note.write_text("old")

    child = os.fork()
    if child == 0:  # in the process that dies
        with replacing(path) as beside:
            if kind == "folder":
                beside.mkdir()
            (beside if kind == "file" else beside / "note.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert note.read_text() == "old"


def test_a_folder_is_never_half_removed_while_it_is_replaced(tmp_path, monkeypatch):
    folder = tmp_path / "patient"
    folder.mkdir()
    (folder / "scan.txt").write_text("old")
    seen = []
    rmtree = shutil.rmtree

    def spy(path):
        seen.append((path.name, everything_in(folder)))
        rmtree(path)

    monkeypatch.setattr(files.shutil, "rmtree", spy)
    with replacing(folder) as beside:
        beside.mkdir()
        (beside / "scan.txt").write_text("new")
        (beside / "labels.txt").write_text("new")

    # What is removed has another name by then, and the new folder stands in its place.
    assert seen == [(f".replaced-{os.getpid()}-{threading.get_ident()}-patient", ["labels.txt", "scan.txt"])]


def test_what_killed_processes_left_is_removed_once_it_is_old_enough(tmp_path):
    file, folder, other = (tmp_path / name for name in (".writing-1-a.csv", ".replaced-2-patient", "a.csv"))
    for place in (file, other):
        place.write_text("half")
    (folder / "inside").mkdir(parents=True)

    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {file, folder, other}  # perhaps somebody is at them right now

    for place in (file, folder, other):
        os.utime(place, (0, 0))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {other}
    remove_leftovers(tmp_path / "not there")


def test_json_reads_back_and_is_readable_by_people(tmp_path):
    content = {"name": "Größe", "slices": [1, 2], "share": 0.45}
    write_json(tmp_path / "a.json", content)

    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()[1] == '  "name": "Größe",'


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)

    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"array": np.zeros(2)})

    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("place", ["gone.json", "file/gone.json"])
def test_a_missing_json_file_is_named_with_what_to_do(tmp_path, place):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(CourseError, match=r"gone\.json: there is no such file\. Check the path, or run again"):
        read_json(tmp_path / place)


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"NIfTI"])
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)

    with pytest.raises(CourseError, match=r"a\.json: this is not readable as JSON .*Delete it, and run again"):
        read_json(tmp_path / "a.json")


def test_sha256_is_the_known_one_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")

    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_covers_a_file_to_its_last_byte(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    (tmp_path / "b").write_bytes(bytes((3 << 20) - 1) + b"\x01")

    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")


def test_two_threads_that_write_the_same_folder_at_once_keep_out_of_each_others_way(tmp_path):
    meet = threading.Barrier(2, timeout=10)
    problems = []

    def write(text):
        try:
            with replacing(tmp_path / "patient") as beside:
                beside.mkdir()
                meet.wait()
                (beside / "scan.txt").write_text(text)
                if text == "second":
                    first.join(timeout=10)  # the renames themselves take turns here
        except Exception as problem:
            problems.append(problem)

    first, second = (threading.Thread(target=write, args=(text,)) for text in ("first", "second"))
    first.start(), second.start()
    first.join(), second.join()

    assert problems == []
    assert everything_in(tmp_path) == ["patient"] or (tmp_path / "patient" / "scan.txt").read_text() == "second"
