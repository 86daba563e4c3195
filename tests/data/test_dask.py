"""Preprocessing on a Dask cluster: the same cache, made by the cluster's workers."""

import os
import runpy
import signal
import sys
import time
import tomllib
from pathlib import Path

import cloudpickle
import dask
import pytest
from distributed import Client, LocalCluster

from emcad_lib.data import cluster as module
from emcad_lib.data.cluster import run_jobs
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError, sha256

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two worker processes."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, memory_limit=None, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pids(cluster):
    """The process ids of the cluster's workers."""
    with Client(cluster, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


@pytest.fixture
def patients(tiny_patients, tmp_path):
    """A folder of four tiny patients, the second with a fault."""
    folders = tiny_patients(tmp_path / "patients", 4)
    file = folders[1] / f"{folders[1].name}_t2.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])
    return tmp_path / "patients"


def content(folder):
    return {path.relative_to(folder): sha256(path) for path in folder.rglob("*") if path.is_file()}


def slow_worker(item):
    """The process that does it, and the item."""
    time.sleep(0.05)
    return os.getpid(), item


def wait_for(path):
    """Come back when a file exists."""
    for _ in range(6000):
        if path.exists():
            return path
        time.sleep(0.01)
    raise CourseError(f"{path} is still missing.")


def die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(item):
    raise CourseError(f"Patient {item} has no head.")


def on(cluster, job, items, folder):
    """Do jobs on the cluster. The workers can't import this file, so its functions are sent along."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return run_jobs(job, items, folder, workers=None, dask=cluster.scheduler_address)


def test_a_cluster_writes_byte_by_byte_what_joblib_writes_and_reports_the_same_faults(
    cluster, patients, tmp_path, monkeypatch, capsys
):
    alone = preprocess(patients, tmp_path / "alone", workers=1)
    monkeypatch.chdir(tmp_path)  # the workers were started elsewhere, and are given names from here
    capsys.readouterr()

    report = preprocess("patients", "cache", dask=cluster.scheduler_address)

    assert "4/4" in capsys.readouterr().out  # each patient moves the bar, the one with the fault too
    assert content(tmp_path / "cache") == content(tmp_path / "alone")
    assert not list((tmp_path / "cache").rglob(".*"))
    assert report.prepared == alone.prepared
    assert [str(problem) for problem in report.problems] == [str(problem) for problem in alone.problems]
    assert "Patient BraTS20_Training_002, BraTS20_Training_002_t2.nii.gz: the compressed" in str(report.problems[0])
    assert preprocess("patients", "cache", dask=cluster.scheduler_address).reused == report.prepared


def test_the_work_is_done_by_the_clusters_workers_and_by_all_of_them(cluster, pids, tmp_path):
    done = list(on(cluster, slow_worker, range(12), tmp_path))

    assert {pid for pid, _ in done} == pids
    assert os.getpid() not in pids
    assert sorted(item for _, item in done) == list(range(12))


def test_results_come_one_by_one_and_not_all_at_the_end(cluster, tmp_path):
    waiting = on(cluster, wait_for, [tmp_path, tmp_path / "first result"], tmp_path)
    assert next(waiting) == tmp_path

    (tmp_path / "first result").touch()

    assert next(waiting) == tmp_path / "first result"


def test_the_word_local_makes_a_cluster_of_so_many_processes_for_the_work_and_ends_it(tmp_path):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    (pid,) = {pid for pid, _ in run_jobs(slow_worker, range(6), tmp_path, workers=1, dask="local")}

    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_command_takes_the_address(cluster, patients, tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "data_scripts" / "preprocess.py"))

    code = script["main"]([str(patients), "--out", str(tmp_path / "cache"), "--dask", cluster.scheduler_address])

    said = capsys.readouterr()
    assert code == 1
    assert "3 patients prepared" in said.out
    assert said.err.startswith("Left out: Patient BraTS20_Training_002")


def test_an_error_of_a_job_stays_what_it_is(cluster, tmp_path):
    with pytest.raises(CourseError, match="Patient 3 has no head"):
        next(on(cluster, refuse, [3], tmp_path))


def test_a_job_whose_workers_are_killed_again_and_again_stops_the_work_with_a_message(tmp_path):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as one,
        pytest.raises(CourseError, match="A worker was killed, .* Give the cluster's workers more memory"),
    ):
        next(on(one, die, [1], tmp_path))


def test_a_killed_process_of_joblib_is_said_too(tmp_path):
    with pytest.raises(CourseError, match="A worker was killed, .* Take fewer --workers"):
        list(run_jobs(os._exit, [1, 1], tmp_path, 2, None))


def test_a_cluster_without_workers_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WORKER_SECONDS", 1)
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        with pytest.raises(CourseError, match=f"{address}: this cluster has no worker. .* dask worker {address}"):
            next(run_jobs(abs, [1], tmp_path, None, address))


@pytest.mark.parametrize("address", ["nonsense", "foo://localhost:8786", "tcp://127.0.0.1:9"])
def test_an_address_where_no_scheduler_answers_is_named(tmp_path, monkeypatch, address):
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 1)

    with pytest.raises(CourseError, match=f"{address}: no Dask scheduler answers there"):
        next(run_jobs(abs, [1], tmp_path, None, address))


def test_a_folder_that_a_worker_does_not_see_is_named(cluster, tmp_path, monkeypatch):
    """As on a machine that has another disk under this path."""
    monkeypatch.setattr(module, "_exists", os.path.isdir)  # the probe is a file

    with pytest.raises(CourseError, match=f"{tmp_path}: tcp://.*, a worker of the cluster .*, doesn't see this folder"):
        next(on(cluster, slow_worker, [1], tmp_path))


def test_the_number_of_workers_is_the_clusters_own(tmp_path):
    with pytest.raises(CourseError, match="tcp://127.0.0.1:8786 has workers of its own: leave out --workers"):
        next(run_jobs(abs, [1], tmp_path, 2, "tcp://127.0.0.1:8786"))


def test_without_the_package_a_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = project["optional-dependencies"]["dask"]

    with pytest.raises(CourseError, match=f"isn't installed: pip install '{wanted}'"):
        next(run_jobs(abs, [1], tmp_path, None, "local"))
