"""What a run costs is measured: its minutes, its processors' minutes, its waiting, its memory."""

import subprocess
import sys

import pytest

from emcad_lib import meter
from emcad_lib.meter import Meter, yardstick

COMPUTES = "import time\nwhile time.process_time() < 1.5: pass"


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(meter, "SAMPLE_SECONDS", 0.05)


def spent(program):
    with Meter() as measured:
        subprocess.run([sys.executable, "-c", program], check=True)
    return measured.spent


def test_a_program_that_computes_has_its_processor_time_counted_and_no_waiting():
    work = spent(COMPUTES)

    assert 0.9 < 60 * work.processor_minutes <= 60 * work.minutes + 0.1
    assert work.idle_minutes < work.processor_minutes / 2


def test_a_program_that_only_waits_has_its_waiting_counted():
    wait = spent("import time\ntime.sleep(1.5)")

    assert 60 * wait.idle_minutes > 0.75
    assert wait.idle_minutes <= wait.minutes


def test_the_work_of_a_programs_own_children_counts_too():
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {COMPUTES!r}])"

    assert 60 * spent(program).processor_minutes > 0.9


def test_the_most_memory_that_it_held_at_once_counts():
    held = spent("import time\nblock = bytearray(b'x') * 300_000_000\ntime.sleep(0.5)\ndel block\ntime.sleep(0.3)")

    assert 0.3 < held.memory_gb < 0.5


def test_what_ran_before_is_not_counted():
    block = "block = bytearray(b'x') * 300_000_000\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", block], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"

        assert spent("import time\ntime.sleep(0.5)").memory_gb < 0.2
        other.kill()


def test_the_yardstick_is_a_time_and_leaves_the_threads_as_they_were():
    import torch

    threads = torch.get_num_threads()

    assert yardstick() > 0
    assert torch.get_num_threads() == threads
