"""What `import emcad_lib` does by itself: next to nothing, and that before PyTorch is loaded."""

import os
import subprocess
import sys

import emcad_lib


def printed(code, **environment):
    """What a Python of its own prints."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_name_that_is_exported_is_there():
    for name in emcad_lib.__all__:
        assert getattr(emcad_lib, name) is not None


def test_another_name_is_an_attribute_error():
    assert not hasattr(emcad_lib, "nothing_of_that_name")


def test_importing_it_loads_neither_torch_nor_timm():
    code = "import sys, emcad_lib; print('torch' in sys.modules, 'timm' in sys.modules)"

    assert printed(code) == ["False", "False"]


def test_waiting_threads_give_their_processor_away_unless_the_reader_chose_otherwise():
    code = "import os, emcad_lib; print(os.environ['OMP_WAIT_POLICY'])"

    assert printed(code) == ["PASSIVE"]
    assert printed(code, OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE"]
