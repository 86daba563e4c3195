"""The command that runs the notebooks: strict about them, sparing with work, exact about what it wrote."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import emcad_lib.lesson
from emcad_lib import figures
from emcad_lib.figures import figure_names, main, make_figures, run_notebook
from emcad_lib.files import CourseError, read_json, sha256
from emcad_lib.lesson import versions
from emcad_lib.meter import Spent

PARAMETERS = 'PROFILE = ""\nDATA_DIR = ""\nFIGURES_DIR = ""\nSEED = 0'
BEGIN = 'from emcad_lib.lesson import begin\nlesson = begin("{name}", PROFILE, DATA_DIR, FIGURES_DIR, SEED)'
SHOW = """\
from emcad_lib.show import plots
bars = plots.bars({{"a": {height}, "seed": SEED}}, "x")
lesson.show(bars, "{figure}", data={{"height": [{height}, SEED]}}, alt="Bars.")
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A course's folder of its own, and none of the environment's settings."""
    for name in ("EMCAD_PROFILE", "EMCAD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMCAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def patients(tmp_path_factory, tiny_patients):
    """A folder of three tiny patients."""
    folder = tmp_path_factory.mktemp("patients")
    tiny_patients(folder, 3)
    return folder


def write(path, *sources, parameters=PARAMETERS):
    """Write a notebook: a title, a cell of parameters, and the given cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *cells], metadata=kernel), path)
    return path


def write_lesson(home, name, figure, height=1):
    """Write a notebook of the course that makes one figure."""
    sources = BEGIN.format(name=name), SHOW.format(figure=figure, height=height)
    return write(home / "notebooks" / f"{name}.ipynb", *sources)


# ---- One notebook, in a kernel of its own ----------------------------------------------------------------------------


def outputs(executed):
    return "".join(
        output.get("text", "")
        for cell in nbformat.read(executed, as_version=4).cells
        for output in cell.get("outputs", [])
    )


def test_a_notebook_runs_in_its_own_folder_with_its_parameters(tmp_path):
    notebook = write(
        tmp_path / "nb" / "a.ipynb", "import os\nprint(N + 1, os.path.basename(os.getcwd()))", parameters="N = 0"
    )

    run_notebook(notebook, tmp_path / "out" / "a.ipynb", {"N": 41})

    assert outputs(tmp_path / "out" / "a.ipynb") == "42 nb\n"


def test_a_parameter_that_the_notebook_does_not_have_is_refused_before_anything_runs(tmp_path):
    notebook = write(tmp_path / "a.ipynb", parameters="N = 0")

    with pytest.raises(CourseError, match=r"a\.ipynb has no parameter M, X\. Add it"):
        run_notebook(notebook, tmp_path / "out" / "a.ipynb", {"N": 1, "X": 1, "M": 1})

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# Divide.\n1 / 0", r"a\.ipynb: the cell that begins with `# Divide\.` failed with ZeroDivisionError: div"),
        ("import sys\nsys.exit(0)", r"a\.ipynb: the cell that begins with `import sys` ended the notebook"),
        ("import sys\nsys.exit(3)", r"a\.ipynb: the cell that begins with `import sys` failed with SystemExit: 3"),
        ("import os\nos._exit(0)", r"a\.ipynb: its kernel died.*memory"),
    ],
    ids=["error", "exit 0", "exit 3", "dead"],
)
def test_a_notebook_that_does_not_come_to_its_end_is_an_error(tmp_path, source, message):
    notebook = write(tmp_path / "a.ipynb", source, "print('the end')", parameters="N = 0")

    with pytest.raises(CourseError, match=message):
        run_notebook(notebook, tmp_path / "out" / "a.ipynb", {})


def test_leaving_in_the_last_cell_is_an_error_too(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "import sys\nsys.exit()", parameters="N = 0")

    with pytest.raises(CourseError, match="ended the notebook before its end. Mend it"):
        run_notebook(notebook, tmp_path / "out" / "a.ipynb", {})


# ---- Their figures, with the cells run in this process, which is quicker ---------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """Runs cells here instead of in a kernel; the list of the notebooks that ran."""
    names = []

    def run_here(notebook, executed, parameters):
        names.append(notebook.stem)
        scope = {}
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, scope)
            if "parameters" in cell.metadata.get("tags", []):
                scope |= parameters

    monkeypatch.setattr(figures, "run_notebook", run_here)
    return names


@pytest.fixture
def course(home):
    """Two notebooks with a figure each."""
    return [write_lesson(home, "01_one", "01-bars"), write_lesson(home, "02_two", "02-bars", height=2)]


@pytest.fixture
def make(ran, course, patients, tmp_path):
    """Makes the course's figures, and returns the names of the notebooks that were run for it."""

    def make(**settings):
        ran.clear()
        settings = {"notebooks": course, "out": tmp_path / "figs", "profile": "ci", "data": str(patients)} | settings
        make_figures(**settings)
        return list(ran)

    return make


def test_the_figures_of_a_notebook_are_read_from_its_code(tmp_path):
    notebook = write(
        tmp_path / "a.ipynb",
        'lesson.show(bars(), "01-one", data={}, alt="")\nif x:\n    lesson.show(f(x), "01-two", data={}, alt="")',
        'other.show("01-three")',
        'lesson.show(\n    bars(),\n    "01-four",\n    data={},\n    alt="",\n)',
    )

    assert figure_names(notebook) == ["01-one", "01-two", "01-four"]


@pytest.mark.parametrize(
    "show", ['lesson.show(bars(), f"01-{i}", data={}, alt="")', 'lesson.show(bars(), name="01-one")']
)
def test_a_figure_whose_name_is_not_written_out_is_an_error(tmp_path, show):
    with pytest.raises(CourseError, match=r"a\.ipynb: write the figure's id out, second in lesson\.show\(bars"):
        figure_names(write(tmp_path / "a.ipynb", show))


def test_the_manifest_lists_every_figure_with_its_origin(make, tmp_path, patients):
    make(seed=7)
    out = tmp_path / "figs"
    manifest = read_json(out / "manifest.json")

    assert (manifest["profile"], manifest["seed"]) == ("ci", 7)
    assert [record["id"] for record in manifest["figures"]] == ["01-bars", "02-bars"]
    for record, notebook, height in zip(manifest["figures"], ("01_one", "02_two"), (1, 2), strict=True):
        assert (out / record["file"]).read_bytes().startswith(b"\x89PNG")
        assert (out / record["data"]).read_text() == f"height\n{height}\n7\n"
        assert record["sha256"] == sha256(out / record["data"])
        assert (record["notebook"], record["profile"], record["seed"]) == (notebook, "ci", 7)
        assert (record["runs"], record["versions"]) == ([], versions())
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_folder_of_patients_may_begin_with_a_tilde(make, monkeypatch, tmp_path, patients):
    monkeypatch.setenv("HOME", str(patients.parent))

    make(data=f"~/{patients.name}")

    assert len(read_json(tmp_path / "figs" / "manifest.json")["figures"]) == 2


def test_a_second_call_runs_nothing_and_writes_the_same_manifest(make, tmp_path):
    assert make() == ["01_one", "02_two"]
    manifest = (tmp_path / "figs" / "manifest.json").read_bytes()

    assert make() == []
    assert (tmp_path / "figs" / "manifest.json").read_bytes() == manifest


def test_what_a_run_took_is_kept_until_the_next(make, tmp_path):
    state = tmp_path / "figs" / ".state" / "01_one.json"
    make()
    spent = read_json(state)["spent"]
    make()

    assert Spent(**spent).minutes > 0
    assert read_json(state)["spent"] == spent


def test_a_second_call_can_be_forced(make):
    make()

    assert make(force=True) == ["01_one", "02_two"]


def test_only_the_notebook_that_was_edited_runs_again(make, home, tmp_path):
    make()
    write_lesson(home, "02_two", "02-bars", height=3)

    assert make() == ["02_two"]
    assert (tmp_path / "figs" / "data" / "02-bars.csv").read_text() == "height\n3\n0\n"


@pytest.mark.parametrize("change", ["edit the numbers", "remove the numbers", "remove the picture", "remove the state"])
def test_a_notebook_whose_figures_are_not_as_written_runs_again(make, tmp_path, change):
    make()
    out = tmp_path / "figs"
    if change == "edit the numbers":
        (out / "data" / "01-bars.csv").write_text("height\n9\n")
    else:
        names = {"numbers": "data/01-bars.csv", "picture": "01-bars.png", "state": ".state/01_one.json"}
        (out / names[change.split()[-1]]).unlink()

    assert make() == ["01_one"]
    assert (out / "data" / "01-bars.csv").read_text() == "height\n1\n0\n"


def test_other_settings_patients_or_versions_run_everything_again(make, monkeypatch, tmp_path, tiny_patients):
    tiny_patients(tmp_path / "others", 3, seed=5)
    settings = {}
    make()
    for change in ({"seed": 1}, {"profile": "quick"}, {"data": str(tmp_path / "others")}):
        settings |= change
        assert make(**settings) == ["01_one", "02_two"], change
    monkeypatch.setattr(figures, "versions", lambda: {"torch": "99"})
    assert make(**settings) == ["01_one", "02_two"]


@pytest.mark.parametrize(
    ("table", "run_again"),
    [("02-bars.csv", ["02_two"]), ("02-bars/history.csv", ["02_two"]), ("of_no_notebook.csv", [])],
)
def test_a_changed_recorded_table_runs_the_notebooks_again_that_name_it(make, monkeypatch, tmp_path, table, run_again):
    path = tmp_path / "recorded" / table
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(figures, "RECORDED", tmp_path / "recorded")
    make()
    path.write_text("score\n0.5\n")

    assert make() == run_again


def test_changed_prose_alone_runs_nothing_again(make, course):
    make()
    notebook = nbformat.read(course[0], as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("Words."))
    nbformat.write(notebook, course[0])

    assert make() == []


def test_changed_outputs_alone_run_nothing_again(make, course):
    make()
    notebook = nbformat.read(course[0], as_version=4)
    notebook.cells[1].execution_count = 5
    nbformat.write(notebook, course[0])

    assert make() == []


def test_an_interrupted_call_goes_on_where_it_stopped(make, home, tmp_path):
    notebook = write(home / "notebooks" / "02_two.ipynb", BEGIN.format(name="02_two"), "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        make()
    assert not (tmp_path / "figs" / "manifest.json").exists()
    assert notebook == write_lesson(home, "02_two", "02-bars")

    assert make() == ["02_two"]
    assert [record["id"] for record in read_json(tmp_path / "figs" / "manifest.json")["figures"]] == [
        "01-bars",
        "02-bars",
    ]


def test_a_notebook_that_does_not_make_its_figure_is_an_error_even_if_an_earlier_run_made_it(make, home):
    make()
    show = SHOW.format(figure="02-bars", height=2)
    write(
        home / "notebooks" / "02_two.ipynb",
        BEGIN.format(name="02_two"),
        "if False:\n    " + show.replace("\n", "\n    "),
    )

    with pytest.raises(CourseError, match=r"02_two\.ipynb ran to its end without making its figures 02-bars\. Show"):
        make()


def test_figures_that_no_notebook_makes_any_more_are_removed_and_nothing_else_is(make, home, course, tmp_path):
    out = tmp_path / "figs"
    make()
    (out / "recorded").mkdir()
    (out / "recorded" / "history.csv").write_text("epoch\n")
    (out / "drawn_by_hand.png").write_text("mine")
    write_lesson(home, "01_one", "01-renamed")

    make(notebooks=course[:1])

    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and ".state" not in path.parts}
    assert left == {
        "manifest.json", "01-renamed.png", "data/01-renamed.csv", "recorded/history.csv", "drawn_by_hand.png",
    }  # fmt: skip


def test_it_says_what_it_does_and_how_long_each_notebook_took(make, capsys):
    make()
    first = capsys.readouterr().out
    make()
    second = capsys.readouterr().out

    assert "Running 2 notebooks" in first
    assert "2 figures in" in first
    assert [line.split()[0] for line in first.splitlines() if line.endswith(" s   1 figure")] == ["01_one", "02_two"]
    assert second.count("unchanged   1 figure") == 2


# ---- The command line ------------------------------------------------------------------------------------------------


def test_the_command_runs_all_notebooks_in_order_and_stores_nothing_in_them(home, course, ran, patients, tmp_path):
    write(home / "notebooks" / "draft.ipynb", "1 / 0")
    before = [notebook.read_bytes() for notebook in course]

    assert main(["--profile", "ci", "--data", str(patients), "--out", str(tmp_path / "figs"), "--seed", "3"]) == 0

    manifest = read_json(tmp_path / "figs" / "manifest.json")
    assert ran == ["01_one", "02_two"]
    assert [(record["id"], record["seed"]) for record in manifest["figures"]] == [("01-bars", 3), ("02-bars", 3)]
    assert [notebook.read_bytes() for notebook in course] == before


def test_outputs_are_stored_in_the_notebooks_on_demand(course, ran, tmp_path, monkeypatch, tiny_patients):
    stored = []
    monkeypatch.setattr(figures, "store_outputs", lambda notebook, executed: stored.append((notebook.name, executed)))
    monkeypatch.setattr(emcad_lib.lesson, "make_phantoms", lambda folder, patients: tiny_patients(folder, 3))

    assert main(["--profile", "ci", "--out", str(tmp_path / "figs"), "--store"]) == 0

    executed = tmp_path / "figs" / ".state" / "executed"
    assert stored == [(name, executed / name) for name in ("01_one.ipynb", "02_two.ipynb")]


def test_pictures_of_a_readers_own_patients_come_with_a_word_on_their_terms(make, monkeypatch, tiny_patients, capsys):
    make()
    own = capsys.readouterr().out
    monkeypatch.setattr(emcad_lib.lesson, "make_phantoms", lambda folder, patients: tiny_patients(folder, 3))
    make(data="")
    phantoms = capsys.readouterr().out

    assert "don't commit them" in own
    assert "don't commit them" not in phantoms


def test_an_error_ends_the_command_with_1_and_a_message_instead_of_a_traceback(course, ran, tmp_path, capsys):
    assert main(["--profile", "fast", "--out", str(tmp_path / "figs")]) == 1
    assert main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "figs")]) == 1

    error = capsys.readouterr().err
    assert "no profile 'fast'" in error
    assert "there is no such folder" in error
    assert "Traceback" not in error
    assert ran == []


def test_without_notebooks_it_says_where_it_looked(home, capsys):
    assert main([]) == 1
    assert f"{home / 'notebooks'}: no notebooks here" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["option", "environment"])
def test_pictures_of_real_patients_are_never_stored_in_the_notebooks(course, ran, patients, monkeypatch, capsys, by):
    if by == "environment":
        monkeypatch.setenv("EMCAD_DATA_DIR", str(patients))

    assert main(["--store", *(["--data", str(patients)] if by == "option" else [])]) == 1
    said = capsys.readouterr().err
    assert "must not be committed" in said
    assert "Leave out --data, and unset EMCAD_DATA_DIR" in said
    assert ran == []


def test_figures_where_a_file_stands_are_refused_before_anything_runs(course, ran, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")

    assert main(["--profile", "ci", "--out", str(tmp_path / "mine")]) == 1

    assert f"{tmp_path / 'mine'}: this is a file and no folder. Give --out another place." in capsys.readouterr().err
    assert ran == []
