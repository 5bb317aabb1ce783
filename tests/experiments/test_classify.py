"""Images are classified as a person does it: some of them are of no class of the gallery."""

import shutil

import pandas as pd
import pytest

from tests.support import programs


@pytest.fixture
def folders(own_run, tmp_path):
    """A gallery of three of four digits, and the other images; and the run."""
    images, run = own_run
    for file in sorted(images.glob("*/*")):
        is_query = file.parent.name == "three" or int(file.stem) % 3 == 0
        folder = tmp_path / ("asked" if is_query else "gallery") / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    shutil.copytree(run, tmp_path / "run")
    return tmp_path


def classify(folders, *flags):
    given = [f"--workdir={folders / 'run'}", f"--gallery={folders / 'gallery'}", *flags]
    return programs.run("classify", *given)


def test_images_are_named_or_called_unknown_and_scored(folders):
    output = folders / "answers.parquet"
    done = classify(
        folders,
        f"--query={folders / 'asked'}",
        f"--calibration={folders / 'gallery'}",
        "--false_accept_rate=0.15",
        "--by=means",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    answers = pd.read_parquet(output)
    count = sum(1 for _ in folders.glob("asked/*/*"))
    assert len(answers) == count and set(answers["class"]) <= {"zero", "one", "two"}
    known = answers[answers.label != "three"]
    assert (known["class"] == known.label).mean() > 0.8
    is_unknown = answers.verdict == "unknown"
    assert is_unknown[answers.label == "three"].mean() > is_unknown[answers.label != "three"].mean()
    assert (answers.runner_up_distance >= answers.distance).all()
    assert f"{is_unknown.sum()} unknown" in done.stdout and "mean of a class" in done.stdout
    assert "unknown: beyond a distance of" in done.stdout and "DIR at a FAR of 5%" in done.stdout


def test_an_image_of_the_gallery_is_named_by_the_others(folders):
    query = next((folders / "gallery" / "two").iterdir())
    done = classify(folders, f"--query={query}", "--neighbours=3")
    assert done.returncode == 0, done.stderr
    assert "1 of the images are in the gallery" in done.stdout and "3 nearest images" in done.stdout
    assert "no threshold by the validation split: --false_accept_rate=0.05" in done.stdout
