"""A training run that is killed goes on as if nothing had happened, wherever it was killed."""

import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

KILL_NINE = Path(__file__).parents[1] / "kill_nine.py"


def test_a_run_killed_at_twenty_random_moments_goes_on_to_the_same_history_and_never_leaves_an_unreadable_file(
    tiny_cache, tmp_path
):
    shutil.copytree(tiny_cache, tmp_path / "cache")
    command = [sys.executable, str(KILL_NINE), "training", str(tmp_path), str(secrets.randbelow(1_000_000))]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    tally = json.loads(done.stdout)
    assert sum(tally["kills"].values()) == 20
    assert min(tally["kills"][kind] for kind in ("clock", "rename", "bytes")) >= 3
    assert tally["halves"] >= tally["kills"]["bytes"]  # a kill in the middle of a write leaves half a file
    assert tally["ends"] >= 1
    assert tally["lost"] >= 1  # came back from its mirror
