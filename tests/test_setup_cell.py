"""What is the same at the top of every notebook is written into all of them, from one place each; and the cell fetches.

`test_colab.py` runs the cell, and a notebook behind it, on a machine like Colab's. Here the course that it fetches is a
small one, and Python sees no other packages.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import emcad_lib
from emcad_lib.costs import HEADER, cost_table, read_costs
from emcad_lib.setup_cell import address, badges, setup_cell, update

VERSION = emcad_lib.__version__
COURSE = f"emcad-course-{VERSION}"
SETTLE = 'def settle(course, version, keep):\n    print("{state}", course, version, keep)\n'


# ---- What is written into the notebooks ------------------------------------------------------------------------------


def test_the_badges_open_the_page_that_they_stand_on():
    place = f"{address().removeprefix('https://github.com/')}/blob/main/notebooks"
    colab, kaggle = badges(Path("notebooks/03_x.ipynb")).split(" [![")

    assert colab.endswith(f"](https://colab.research.google.com/github/{place}/03_x.ipynb)")
    assert kaggle.endswith(f"](https://kaggle.com/kernels/welcome?src=https://github.com/{place}/03_x.ipynb)")
    assert (
        badges(Path("notebooks/solutions/03_x_solutions.ipynb")).count(f"{place}/solutions/03_x_solutions.ipynb)") == 2
    )


def test_an_update_renews_the_setup_cell_the_badges_and_the_costs_and_nothing_else(tmp_path):
    notebook, costs = tmp_path / "03_x.ipynb", tmp_path / "costs.csv"
    costs.write_text("notebook,profile,minutes,memory_gb,basis,yardstick,note\n03_x,ci,2,1,measured,0.06,\n")
    cells = [
        new_markdown_cell("# 03 · X\n\n[![Open in Colab](old)](old)\n\nWhy (and how)?"),
        new_markdown_cell(f"**You need** x.\n\n{HEADER}\n|---|---|---|\n| ci | 9 | 9 GB |\n\n| more |\n|---|"),
        new_code_cell("old setup", metadata={"tags": ["setup"]}),
        new_code_cell("print(1)"),
    ]
    nbformat.write(new_notebook(cells=cells), notebook)

    for _ in range(2):  # the second time, there is nothing to renew
        update(notebook, costs)
        first, needs, setup, rest = nbformat.read(notebook, as_version=4).cells

        assert first.source == f"# 03 · X\n\n{badges(notebook)}\n\nWhy (and how)?"
        assert needs.source == f"**You need** x.\n\n{cost_table(read_costs(costs), '03_x')}\n\n| more |\n|---|"
        assert setup.source == setup_cell()
        assert rest.source == "print(1)"


def test_the_setup_cell_knows_its_version():
    assert f'VERSION = "{VERSION}"' in setup_cell()


# ---- What the cell does ----------------------------------------------------------------------------------------------


def git(folder, *words):
    who = ["-c", "user.name=A reader", "-c", "user.email=reader@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A course with a release of this version, and a main branch that has gone on."""
    folder = tmp_path / "repository"
    (folder / "emcad_lib").mkdir(parents=True)
    git(folder, "init", "--initial-branch=main")
    for state in ("release", "newest"):
        (folder / "emcad_lib" / "hosted.py").write_text(SETTLE.format(state=state))
        git(folder, "add", ".")
        git(folder, "commit", "--message", state)
        if state == "release":
            git(folder, "tag", f"v{VERSION}")
    return folder


@pytest.fixture
def run(tmp_path, repository):
    """Runs the setup cell where nothing is installed."""

    def run(hosts=("colab",)):
        cell = setup_cell().replace(address(), f"file://{repository}")
        cell = cell.replace('"/content"', f'"{tmp_path}/colab"').replace('"/kaggle/working"', f'"{tmp_path}/kaggle"')
        colab = 'import sys\nsys.modules["google.colab"] = sys\n' if "colab" in hosts else ""
        environment = os.environ | ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"} if "kaggle" in hosts else {})
        command = [sys.executable, "-I", "-S", "-c", colab + cell]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("hosts", "root"), [(("colab",), "colab"), (("kaggle",), "kaggle"), (("colab", "kaggle"), "kaggle")], ids=str
)
def test_the_cell_finds_out_where_it_runs_and_fetches_its_own_version(run, tmp_path, hosts, root):
    done = run(hosts=hosts)

    assert done.stdout == f"release {tmp_path}/{root}/{COURSE} {VERSION} False\n", done.stderr
    assert [path.name for path in (tmp_path / root).iterdir()] == [COURSE]


def test_elsewhere_it_fetches_nothing(run, tmp_path, repository):
    done = run(hosts=())

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == [repository]


def test_without_a_release_it_fetches_the_newest_state(run, repository):
    git(repository, "tag", "--delete", f"v{VERSION}")

    assert run().stdout.startswith("newest ")


def test_a_second_run_fetches_nothing(run, repository):
    first = run().stdout
    repository.rename(repository.with_name("gone"))

    assert run().stdout == first


def test_a_fetch_that_was_interrupted_is_made_again(run, tmp_path):
    half = tmp_path / "colab" / f"{COURSE}.part" / "emcad_lib"
    half.mkdir(parents=True)
    (half / "hosted.py").write_text("half a f")

    assert run().stdout.startswith("release ")
    assert not half.parent.exists()


def test_without_a_connection_it_says_what_to_do_and_a_second_run_goes_on(run, tmp_path, repository):
    away = repository.rename(repository.with_name("away"))
    failed = run()
    away.rename(repository)

    last = failed.stderr[failed.stderr.index("RuntimeError") :]
    assert failed.returncode == 1
    assert "could not be fetched. Is there a connection? (On Kaggle: Settings, Internet on.) Then run this cell" in last
    assert "git says:\nfatal: " in last
    assert not (tmp_path / "colab" / COURSE).exists()
    assert run().stdout.startswith("release ")
