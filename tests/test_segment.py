"""The command that segments one patient, on tiny patients in every naming."""

import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emcad_lib import create_model, save_weights
from emcad_lib import segment as module
from emcad_lib.data.brats import find_patient, read_scan
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.segment import main, segment_patient

METADATA = {"modalities": json.dumps(["flair", "t1ce", "t2"]), "image_size": "32"}


def write_weights(path, logits=(9.0,), regions=("whole",), **changes):
    """Weights of a network that gives the same logit everywhere, one for each region."""
    torch.manual_seed(0)
    model = create_model(num_classes=len(regions))
    torch.nn.init.zeros_(model.heads[-1].weight)
    model.heads[-1].bias.data = torch.tensor(logits)
    save_weights(model, path, **{**METADATA, "regions": json.dumps(regions), **changes})
    return path


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "all_tumour.safetensors")


@pytest.fixture
def patient(tiny_patients, tmp_path):
    return tiny_patients(tmp_path / "patients", patients=1)[0]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def file_of(patient, word):
    return next(patient.glob(f"*{word}.nii.gz"))


def image(patient, word):
    return nib.load(file_of(patient, word))


@pytest.mark.parametrize(
    ("naming", "flair", "oedema"), [("2018", "_flair", 2), ("2020", "_flair", 2), ("2023", "-t2f", 2)]
)
def test_a_model_of_the_whole_tumour_marks_it_as_oedema_on_the_grid_of_the_input(
    tiny_patients, tmp_path, weights, naming, flair, oedema
):
    patient = tiny_patients(tmp_path / "patients", patients=1, naming=naming)[0]

    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights) == 0

    written, given = nib.load(tmp_path / "out.nii.gz"), image(patient, flair)
    np.testing.assert_array_equal(written.affine, given.affine)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.get_fdata(), 2 * (given.get_fdata() != 0))


def test_a_patient_of_the_decathlon_gets_the_labels_of_the_decathlon(tiny_patients, tmp_path):
    scan = tiny_patients(tmp_path / "patients", patients=1, naming="decathlon")[0]
    core = write_weights(tmp_path / "core.safetensors", (9.0, 9.0), ("whole", "core"))
    whole = write_weights(tmp_path / "whole.safetensors")

    segment_patient(scan, tmp_path / "core.nii.gz", core)
    segment_patient(scan, tmp_path / "whole.nii.gz", whole)

    assert nib.load(tmp_path / "core.nii.gz").shape == nib.load(scan).shape[:3]
    assert np.unique(nib.load(tmp_path / "core.nii.gz").get_fdata()).tolist() == [0, 2]
    assert np.unique(nib.load(tmp_path / "whole.nii.gz").get_fdata()).tolist() == [0, 1]


@pytest.mark.parametrize(("naming", "enhancing"), [("2020", 4), ("2023", 3)])
def test_enhancing_tumour_gets_the_label_of_its_release(tiny_patients, tmp_path, naming, enhancing):
    patient = tiny_patients(tmp_path / "patients", patients=1, naming=naming)[0]
    weights = write_weights(tmp_path / "w.safetensors", (-9.0, -9.0, 9.0), ("whole", "core", "enhancing"))

    segment_patient(patient, tmp_path / "out.nii.gz", weights)

    assert np.unique(nib.load(tmp_path / "out.nii.gz").get_fdata()).tolist() == [0, enhancing]


def test_files_in_another_orientation_are_segmented_in_their_own(patient, tmp_path):
    torch.manual_seed(0)
    model = create_model()  # whatever it answers, the answer must not depend on how the files are stored
    save_weights(model, tmp_path / "random.safetensors", **METADATA, regions='["whole"]')
    arguments = "--weights", tmp_path / "random.safetensors", "--no-refine"
    assert run(patient, "--out", tmp_path / "straight.nii.gz", *arguments) == 0
    for file in patient.glob("*.nii.gz"):
        given = nib.load(file)
        turn = nib.orientations.ornt_transform(nib.io_orientation(given.affine), nib.orientations.axcodes2ornt("SAR"))
        nib.Nifti1Image.from_bytes(given.as_reoriented(turn).to_bytes()).to_filename(file)

    assert run(patient, "--out", tmp_path / "turned.nii.gz", *arguments) == 0

    straight, turned = nib.load(tmp_path / "straight.nii.gz"), nib.load(tmp_path / "turned.nii.gz")
    assert nib.aff2axcodes(turned.affine) == ("S", "A", "R")
    expected = nib.as_closest_canonical(straight).get_fdata()
    assert 0.05 < np.count_nonzero(expected) / np.count_nonzero(image(patient, "_flair").get_fdata()) < 0.95
    np.testing.assert_array_equal(nib.as_closest_canonical(turned).get_fdata(), expected)


def test_the_summary_names_patient_weights_volume_and_dice_and_says_what_it_is_not(patient, tmp_path, weights, capsys):
    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights) == 0

    said = capsys.readouterr().out
    brain = np.count_nonzero(image(patient, "_flair").get_fdata())
    tumour = np.count_nonzero(image(patient, "_seg").get_fdata())
    assert f"{patient.name}: segmented with all_tumour.safetensors in " in said
    assert f"Tumour found: whole {brain / 1000:.1f} cm3." in said
    assert f"Dice with the patient's own segmentation: whole {2 * tumour / (brain + tumour):.3f}." in said
    assert "not a medical device" in said


def test_a_patient_without_a_segmentation_is_segmented_and_not_scored(patient, tmp_path, weights, capsys):
    file_of(patient, "_seg").unlink()

    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights) == 0

    assert "Dice" not in capsys.readouterr().out
    assert nib.load(tmp_path / "out.nii.gz").get_fdata().any()


def test_the_threshold_of_the_command_line_reaches_the_segmentation(patient, tmp_path):
    weights = write_weights(tmp_path / "unsure.safetensors", (0.4,))  # a probability of 0.6 everywhere

    run(patient, "--out", tmp_path / "low.nii.gz", "--weights", weights, "--threshold", "0.59")
    run(patient, "--out", tmp_path / "high.nii.gz", "--weights", weights, "--threshold", "0.61")

    assert nib.load(tmp_path / "low.nii.gz").get_fdata().any()
    assert not nib.load(tmp_path / "high.nii.gz").get_fdata().any()


def test_an_uncompressed_segmentation_is_written_where_the_name_asks_for_it(patient, tmp_path, weights):
    out = segment_patient(patient, tmp_path / "deep" / "out.nii", weights)

    assert out == tmp_path / "deep" / "out.nii"
    assert nib.load(out).shape == (48, 48, 24)
    assert out.read_bytes()[:2] != b"\x1f\x8b"


def test_help_says_how_the_whole_tumour_is_labelled(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])

    assert stopped.value.code == 0
    assert "marks all of it with the label of oedema" in " ".join(capsys.readouterr().out.split())


# The picture


def test_a_picture_is_drawn_where_it_is_asked_for_and_named_in_the_summary(patient, tmp_path, weights, capsys):
    picture = tmp_path / "pictures" / "out.png"

    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights, "--picture", picture) == 0

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"written to {tmp_path / 'out.nii.gz'}, drawn in {picture}\n" in capsys.readouterr().out


def drawn(patient, bits, regions):
    """The labels of the picture's outlines and how each is drawn, and the voxel where its lines cross."""
    found = find_patient(patient)
    figure = module._draw(found, read_scan(found), bits, regions)
    outlines = {line.get_label(): line.get_linestyle() for line in figure.legends[0].legend_handles}
    across, _, down, *_ = figure.axes[0].lines
    return outlines, (int(down.get_xdata()[0]), int(across.get_ydata()[0]))


def test_it_shows_what_was_found_beside_the_patients_own_segmentation(patient):
    bits = np.zeros(image(patient, "_flair").shape, dtype=np.uint8)
    bits[20:25, 30:33, 9] = 7

    assert drawn(patient, bits, ["whole"])[0] == {"found": "-", "the patient's own": "--"}
    assert drawn(patient, bits, ["whole", "core"])[0] == {
        "whole tumour, found": "-", "tumour core, found": "-", "whole tumour, own": "--", "tumour core, own": "--",
    }  # fmt: skip
    file_of(patient, "_seg").unlink()
    assert drawn(patient, bits, ["whole"])[0] == {"found": "-"}


def test_it_goes_through_the_slice_where_the_most_was_found(patient):
    scan = read_scan(find_patient(patient))
    bits = np.zeros(scan.images.shape[1:], dtype=np.uint8)
    bits[20:25, 30:33, 9], bits[10:12, 20:22, 14] = 1, 1
    left, back, _ = np.argwhere((scan.images != 0).any(axis=0)).min(axis=0)  # the picture is cut to the brain

    assert drawn(patient, bits, ["whole"])[1] == (22 - left, 31 - back)


def test_where_nothing_was_found_and_nothing_is_known_it_shows_the_brain(patient):
    file_of(patient, "_seg").unlink()
    bits = np.zeros(image(patient, "_flair").shape, dtype=np.uint8)

    assert drawn(patient, bits, ["whole"])[0] == {"found": "-"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.pdf", "ends in .png"), ("folder.png", "this is a folder"), ("file/out.png", "is a file and no folder")],
)
def test_a_place_where_no_picture_can_be_is_refused_before_the_work(
    name, message, patient, tmp_path, weights, capsys, monkeypatch
):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("emcad_lib.segment.load_weights", lambda path: pytest.fail("the work has begun"))

    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights, "--picture", tmp_path / name) == 1

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.nii.gz").exists()


# Bad input: a message, exit code 1, and what was at --out stays as it was


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


def without_contrast(path):
    given = nib.load(path)
    nib.Nifti1Image((given.get_fdata() != 0).astype(np.int16), given.affine).to_filename(path)


def with_other_kernels(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"]) | {"kernel_sizes": [3, 5, 7]}
    save_file(load_file(path), path, metadata={**metadata, "config": json.dumps(config)})


FAULTS = {
    "no such patient": (lambda patient, weights: shutil.rmtree(patient), "no such folder"),
    "a truncated image": (lambda patient, weights: truncate(file_of(patient, "_t1ce")), "t1ce.*truncated"),
    "a missing image": (lambda patient, weights: file_of(patient, "_t2").unlink(), "missing: t2"),
    "an image without contrast": (
        lambda patient, weights: without_contrast(file_of(patient, "_t2")),
        "Patient BraTS20_Training_001, BraTS20_Training_001_t2.nii.gz: The t2 image has the same value",
    ),
    "no such weights": (lambda patient, weights: weights.unlink(), "no such file of weights"),
    "weights that are text": (
        lambda patient, weights: weights.write_text("no weights"),
        "can't be read as a safetensors file",
    ),
    "weights cut short": (lambda patient, weights: truncate(weights), "can't be read as a safetensors file"),
    "weights of another network": (lambda patient, weights: with_other_kernels(weights), "does not fit"),
    "weights that don't say their modalities": (
        lambda patient, weights: save_weights(create_model(), weights, regions='["whole"]', image_size="32"),
        "doesn't say on which modalities",
    ),
    "weights whose regions are nonsense": (
        lambda patient, weights: save_weights(create_model(), weights, **METADATA, regions="5"),
        "regions must be one or more of whole, core, enhancing, each once, in a list, not 5",
    ),
    "weights that don't say their regions": (
        lambda patient, weights: save_weights(create_model(), weights, **METADATA),
        "doesn't say on which regions",
    ),
    "weights that don't name their network": (
        lambda patient, weights: save_file({"x": torch.zeros(1)}, weights),
        "doesn't say which network",
    ),
    "weights with NaN": (lambda patient, weights: write_weights(weights, (float("nan"),)), "gives NaN"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_gives_a_message_and_leaves_the_output_as_it_was(fault, patient, tmp_path, weights, capsys):
    spoil, message = FAULTS[fault]
    spoil(patient, weights)
    out = tmp_path / "results" / "out.nii.gz"
    out.parent.mkdir()
    out.write_bytes(b"an earlier result")

    assert run(patient, "--out", out, "--weights", weights) == 1

    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert [path.name for path in out.parent.iterdir()] == ["out.nii.gz"]
    assert out.read_bytes() == b"an earlier result"


@pytest.mark.parametrize("name", ["out.txt", "out.gz", "out", "out.nii.zip"])
def test_an_output_that_is_not_called_nifti_is_refused(name, patient, tmp_path, weights, capsys):
    assert run(patient, "--out", tmp_path / "results" / name, "--weights", weights) == 1

    assert "ends in .nii.gz or .nii" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_an_output_that_is_a_folder_is_refused(patient, tmp_path, weights, capsys):
    (tmp_path / "out.nii.gz").mkdir()

    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights) == 1
    assert "this is a folder" in capsys.readouterr().err


def test_an_output_below_a_file_is_refused_before_the_work(patient, tmp_path, weights, capsys, monkeypatch):
    (tmp_path / "results").write_text("mine")
    monkeypatch.setattr("emcad_lib.segment.load_weights", lambda path: pytest.fail("the work has begun"))

    assert run(patient, "--out", tmp_path / "results" / "out.nii.gz", "--weights", weights) == 1

    assert "is a file and no folder" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["_seg", "_flair"])
def test_the_patients_own_files_are_never_overwritten(word, patient, weights, capsys):
    own = file_of(patient, word)
    before = own.read_bytes()

    assert run(patient, "--out", own, "--weights", weights) == 1

    assert "one of the patient's own files" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_a_threshold_that_is_no_probability_is_refused(patient, tmp_path, weights, capsys):
    assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights, "--threshold", "1.5") == 1
    assert "above 0 and below 1, not 1.5" in capsys.readouterr().err


def test_compressed_output_is_gzip(patient, tmp_path, weights):
    segment_patient(patient, tmp_path / "out.nii.gz", weights)

    assert len(gzip.decompress((tmp_path / "out.nii.gz").read_bytes())) == 352 + 48 * 48 * 24


def test_refinement_is_on_by_default_and_can_be_left_out(patient, tmp_path, weights, monkeypatch):
    asked = []
    plain = module.segment_scan

    def watched(*arguments, **settings):
        asked.append(settings)
        return plain(*arguments, **settings)

    monkeypatch.setattr(module, "segment_scan", watched)
    for options in ((), ("--no-refine",), ("--threshold", "0.7")):
        assert run(patient, "--out", tmp_path / "out.nii.gz", "--weights", weights, *options) == 0

    assert REFINED.items() <= asked[0].items()
    assert not REFINED.keys() & asked[1].keys()
    assert REFINED.items() <= asked[2].items()
