"""Where jobs are done: in processes of this machine, or on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from emcad_lib.files import CourseError

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"  # in place of an address: a cluster of this machine's processors, for as long as the work takes

_ANSWER_SECONDS = 30  # to wait for a scheduler's answer
_WORKER_SECONDS = 60  # to wait for a cluster's first worker: some clusters start one only when there is work


def run_jobs(
    job: Callable[[Item], Result], items: Sequence[Item], shared: Path, workers: int | None, dask: str | None
) -> Iterator[Result]:
    """Do the job for each item, several at once, and give each result back as soon as it's ready.

    Args:
        job: a function that other processes can import.
        items: what it's called with.
        shared: the folder that the jobs write to. A cluster's workers must see it under the same path as this process.
        workers: processes at once; None: one per processor. For a cluster at an address, None.
        dask: None for processes of this machine; a Dask scheduler's address, such as tcp://host:8786; or LOCAL.

    Raises:
        CourseError: there is no such cluster, it has no worker, or one that doesn't see the folder; workers were
            killed; ``distributed`` is missing. And whatever the job raises.
    """
    processes = min(workers or os.cpu_count() or 1, len(items))
    if dask is not None:
        if dask != LOCAL and workers is not None:
            raise CourseError(f"The cluster at {dask} has workers of its own: leave out --workers.")
        yield from _on_cluster(job, items, shared, processes, dask)
        return
    try:
        # One by one, so that no more items are in memory than there are processes.
        yield from joblib.Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1)(
            joblib.delayed(job)(item) for item in items
        )
    except TerminatedWorkerError as error:
        raise _killed("Take fewer --workers") from error


def _on_cluster(
    job: Callable[[Item], Result], items: Sequence[Item], shared: Path, processes: int, dask: str
) -> Iterator[Result]:
    # Not through joblib's own Dask backend: with joblib 1.6.0 and distributed 2026.8.0 it never comes back when a job's
    # workers were killed, and does the work in this very process when the cluster has a single thread.
    try:
        import distributed
    except ImportError as error:
        raise CourseError(
            "distributed, which runs Dask, isn't installed: pip install 'distributed>=2024.8'."
        ) from error
    with ExitStack() as stack:
        place: Any = dask
        if dask == LOCAL:
            # One thread each and no limit of memory, as joblib's own processes; the web page goes to any port. It would
            # warn of jobs that are cancelled because another one failed.
            settings = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": ":0"}
            local = distributed.LocalCluster(
                n_workers=processes, processes=True, silence_logs=logging.ERROR, **settings
            )
            place = stack.enter_context(local)
        try:
            if dask != LOCAL:
                distributed.comm.get_address_host_port(dask)  # or else a client that was only half made complains later
            client = stack.enter_context(distributed.Client(place, timeout=_ANSWER_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            raise CourseError(f"{dask}: no Dask scheduler answers there ({error}). Check the address.") from error
        try:
            _check_workers(client, dask, shared)
            for done in distributed.as_completed(client.map(job, items, pure=False), loop=client.loop):
                yield done.result()
        except distributed.scheduler.KilledWorker as error:
            raise _killed("Give the cluster's workers more memory, or fewer threads each") from error
        except distributed.CancelledError as error:
            raise CourseError(
                f"{dask}: the connection to the scheduler is lost. Run the same command again: what is done is kept."
            ) from error


def _check_workers(client: Any, dask: str, shared: Path) -> None:
    """Raise CourseError unless the cluster has workers, and each has the course and sees the folder."""
    try:
        client.submit(os.getpid, pure=False).result(timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        raise CourseError(f"{dask}: this cluster has no worker. Start one or more: dask worker {dask}") from error
    # A new file, because a folder of that name may well exist on another machine's own disk.
    with tempfile.NamedTemporaryFile(dir=shared, prefix=".writing-") as note:
        try:
            seen = client.run(_exists, note.name)
        except ImportError as error:
            raise CourseError(
                f"{dask}: the course isn't installed where the workers run ({error}). Install it there."
            ) from error
    if blind := [worker for worker, sees in seen.items() if not sees]:
        raise CourseError(
            f"{shared}: {blind[0]}, a worker of the cluster at {dask}, doesn't see this folder. Use one that all "
            f"machines share under the same path."
        )


def _exists(path: str) -> bool:  # the library's own, so that calling it shows that a worker has the library
    return os.path.exists(path)


def _killed(remedy: str) -> CourseError:
    return CourseError(
        f"A worker was killed, most likely because the memory ran out. {remedy}, and run the same command again: what "
        f"is done is kept."
    )
