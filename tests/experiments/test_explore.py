"""The page to explore embeddings, and the same for TensorBoard."""

import base64
import io
import json
import re
import shutil
import sys
import types

import numpy as np
import PIL.Image
import pytest

from experiments.run import explore_page
from tests.support import browser, mains, once, programs
from triplet_jax import data, errors, evaluation
from triplet_jax.analysis import run


@pytest.fixture(scope="session")
def trained(plain_run, tmp_path_factory):
    """A run whose best checkpoint is not its last, so that there are several; and its page."""

    def explore(folder):
        shutil.copytree(plain_run, folder)
        done = programs.run("explore", f"--workdir={folder}", f"--projector={folder / 'projector'}")
        assert done.returncode == 0, done.stderr

    return once.made_once(tmp_path_factory, "explored", explore)


@pytest.fixture
def page(trained):
    """Of it."""
    return (trained / "explore.html").read_text()


def content_of(page):
    return json.loads(re.search(r"const content = (.*);", page).group(1))


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_page_holds_the_embeddings_of_every_checkpoint(trained, page):
    content = content_of(page)
    of_run = run.load(trained)
    test = of_run.where("test")
    labels = unpacked(content["labels"], "<u4")
    np.testing.assert_array_equal(labels, of_run.labels[test])
    steps = sorted(int(folder.name) for folder in (trained / "checkpoints").iterdir())
    assert [view["name"] for view in content["views"]] == [f"step {step}" for step in steps]
    assert len(steps) > 1
    judged = next(
        v for v in content["views"] if v["name"] == f"step {of_run.result['checkpoint_step']}"
    )
    distance, position = evaluation.nearest(of_run.embeddings[test], None, neighbours=10)
    np.testing.assert_allclose(unpacked(judged["distances"], "<f4"), distance.ravel(), atol=1e-5)
    same = unpacked(judged["neighbours"], "<u4") == position.ravel()
    assert same.mean() > 0.99  # but for equally near ones
    for view in content["views"]:
        points = unpacked(view["points"], "<f4")
        assert points.min() >= 0 and points.max() <= 1
        assert len(points) == 2 * len(labels)
        assert len(np.unique(unpacked(view["clusters"], "<u4"))) == 10
    precision = of_run.result["embedding"]["retrieval"]["precision_at_1"]
    assert f"P@1 {precision:.3f}" in judged["note"]


USE_THE_PAGE = """
  const at = i => {
    const box = canvas.getBoundingClientRect(), [x, y] = place(i);
    return {clientX: box.left + x, clientY: box.top + y, pointerId: 1, bubbles: true};
  };
  const fire = (name, i) => canvas.dispatchEvent(new PointerEvent(name, at(i)));
  const inked = c => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data].some(
    (v, i) => i % 4 < 3 && v > 0);
  const pick = (id, value, event) => {
    byId(id).value = value;
    byId(id).dispatchEvent(new Event(event));
  };
  const shades = name => {
    pick("colour", name, "change");
    return new Set([...Array(n).keys()].map(colours())).size;
  };
  canvas.setPointerCapture = () => {};
  const tip = byId("tip");
  fire("pointermove", 5);
  const hover = {
    hidden: tip.hidden, text: tip.textContent, image: inked(tip.querySelector("canvas"))};
  fire("pointerdown", 5);
  fire("pointerup", 5);
  const rows = [...byId("side").querySelectorAll(".found")];
  const click = {
    chosen, number: rows.length, hits: rows.filter(r => r.classList.contains("hit")).length,
    image: inked(rows[0].querySelector("canvas"))};
  rows[0].click();
  const followed = chosen;
  const colors = {class: shades("class"), cluster: shades("cluster"), hit: shades("hit")};
  const notes = [byId("note").textContent];
  pick("view", 0, "input");
  notes.push(byId("note").textContent);
  canvas.dispatchEvent(new WheelEvent("wheel", {...at(5), deltaY: -400}));
  draw();
  const drawn = inked(canvas);
  const ink = getComputedStyle(document.body).color, slider = !byId("steps").hidden;
  return {n, hover, click, followed, colors, notes, zoom, drawn, ink, slider};
"""


@browser.needed
@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.slow), True])
def test_hovering_and_clicking_work_in_a_browser(page, tmp_path, dark):
    found = browser.look(page, USE_THE_PAGE, tmp_path, dark=dark)
    content = content_of(page)
    labels = unpacked(content["labels"], "<u4")
    assert found["hover"]["hidden"] is False
    assert found["hover"]["image"]
    chosen = found["click"]["chosen"]
    neighbours = unpacked(content["views"][-1]["neighbours"], "<u4").reshape(-1, 10)[chosen]
    hits = np.sum(labels[neighbours] == labels[chosen])
    assert found["click"] == {"chosen": chosen, "number": 10, "hits": hits, "image": True}
    assert found["hover"]["text"].startswith(content["names"][labels[chosen]])
    assert found["followed"] == neighbours[0]
    assert found["colors"]["class"] == found["colors"]["cluster"] == 10
    assert found["colors"]["hit"] == 2
    assert found["slider"]
    assert found["notes"][0] != found["notes"][1]
    assert found["zoom"] > 2
    assert found["drawn"]
    assert found["ink"] == ("rgb(232, 232, 232)" if dark else "rgb(27, 27, 27)")


@browser.needed
@pytest.mark.slow
def test_13180_points_with_thumbnails_open_in_a_browser(tmp_path):
    n = 13_180
    random = np.random.default_rng(0)
    pixels = (random.random((n, 28, 28, 1)) < 0.1).astype(np.uint8) * 255
    labels = np.arange(n) // 20
    names = tuple(f"class </script> {c}" for c in range(659))
    shown = data.Dataset(pixels, labels, np.full(n, "test"), names)
    view = explore_page.View(
        name="step 1",
        points=random.normal(size=(n, 2)),
        neighbours=np.stack([(np.arange(n) + i) % n for i in range(1, 11)], axis=1),
        distances=np.ones((n, 10)),
        clusters=labels,
        note="",
    )
    page = explore_page.render("many", shown, pixels, [view])
    assert len(page) < 40e6
    found = browser.look(page, USE_THE_PAGE, tmp_path)
    assert found["n"] == n
    assert found["hover"]["image"] and found["click"]["image"] and found["drawn"]
    assert not found["slider"]


def page_of(pixels):
    """A page of 30 examples at one point."""
    shown = data.Dataset(pixels, np.arange(30) % 3, np.full(30, "test"), ("a", "b", "c"))
    none = np.zeros((30, 10))
    at = np.zeros((30, 2))
    view = explore_page.View("step 1", at, none.astype(int), none, np.zeros(30, int), note="")
    return content_of(explore_page.render("a page", shown, pixels, [view]))


def test_features_have_no_thumbnails():
    assert page_of(np.ones((30, 4), np.float32))["atlas"] is None


def test_large_images_are_made_small():
    x = np.zeros((30, 130, 130, 3), np.uint8)
    x[:, :65] = 200  # the upper half
    atlas = page_of(x)["atlas"]
    side, columns = atlas["side"], atlas["columns"]
    assert (side, columns) == (32, 6)
    _, encoded = atlas["src"].split(",")
    with PIL.Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (5 * side, 6 * side, 3)
    last = pixels[4 * side :, 5 * side :].astype(int)
    assert (abs(last[: side // 2 - 1] - 200) < 20).all() and (last[side // 2 + 1 :] < 20).all()


def test_the_projector_of_tensorboard_gets_vectors_names_and_images(trained):
    folder = trained / "projector"
    (vectors,) = folder.glob("**/tensors.tsv")
    (names,) = folder.glob("**/metadata.tsv")
    assert list(folder.glob("**/sprite.png"))
    assert (folder / "projector_config.pbtxt").exists()
    of_run = run.load(trained)
    test = of_run.where("test")
    assert np.loadtxt(vectors).shape == of_run.embeddings[test].shape
    assert names.read_text().split() == [str(c) for c in of_run.labels[test]]


def test_embeddings_of_other_libraries_are_explored_side_by_side(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    labels = np.array(["ann", "bob", "cy", "<i>"])[np.arange(40) % 4]
    split = np.array(["test", "train"])[np.arange(40) // 30]
    for name, scale in (("ours", 1.0), ("theirs", -2.0)):
        np.savez(tmp_path / f"{name}.npz", embeddings=scale * x, labels=labels, split=split)
    files = ",".join(str(tmp_path / f"{name}.npz") for name in ("ours", "theirs"))
    output = tmp_path / "both.html"
    flags = (f"--embeddings={files}", f"--output={output}", "--projection=pca", "--most=20")
    done = programs.run("explore", *flags)
    assert done.returncode == 0, done.stderr
    content = content_of(output.read_text())
    assert [view["name"] for view in content["views"]] == ["ours.npz", "theirs.npz"]
    assert content["names"] == sorted(set(labels))
    assert content["atlas"] is None
    chosen = np.arange(20) * 30 // 20
    of_labels = np.array(content["names"])[unpacked(content["labels"], "<u4")]
    np.testing.assert_array_equal(of_labels, labels[chosen])
    distance, _ = evaluation.nearest(-2.0 * x[chosen], None, neighbours=10)
    found = unpacked(content["views"][1]["distances"], "<f4")
    np.testing.assert_allclose(found, distance.ravel(), rtol=1e-5)


def test_files_that_cannot_be_explored_are_refused(tmp_path):
    x, labels = np.ones((30, 2), np.float32), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", embeddings=x, labels=labels)
    np.savez(tmp_path / "b.npz", embeddings=x, labels=labels[::-1])
    np.savez(tmp_path / "few.npz", embeddings=x[:10], labels=labels[:10])
    output = f"--output={tmp_path / 'page.html'}"
    one, few = f"--embeddings={tmp_path / 'a.npz'}", f"--embeddings={tmp_path / 'few.npz'}"
    refused(
        ((one,), "--output is missing"),
        ((one, output, "--workdir=x"), "leave out --workdir"),
        ((f"{one},{tmp_path / 'b.npz'}", output), "differ in labels"),
        ((one, output, f"--projector={tmp_path}"), "--data and --projector"),
        ((one, output, "--most=10"), "--most=10 must be above 10"),
        ((few, output), "--split=test has 10 examples; more than 10 are needed"),
    )


def test_bad_input_is_refused(trained, tmp_path):
    run = f"--workdir={trained}"
    refused(
        ((f"--workdir={tmp_path}",), "holds no run"),
        ((), "--workdir is missing: the folder of a trained run, or give --embeddings=FILE.npz"),
        ((run, "--split=dev"), "--split='dev' is not known. Allowed: test, train, validation"),
        ((run, "--projection=tsn"), "--projection='tsn' is not known. Did you mean 'tsne'"),
        ((run, "--most=5"), "--most=5 must be above 10"),
        ((run, "--table=rows.csv"), "--table goes with --embeddings"),
        ((run, "--output=page.txt"), "--output=page.txt must be a file named *.html"),
    )


def refused(*cases):
    """Asserts that each list of flags is refused with these words."""
    answers = mains.said("explore", *(flags for flags, _ in cases))
    for (flags, words), answer in zip(cases, answers, strict=True):
        assert answer.startswith("error: ") and words in answer, (flags, answer)


def test_the_projector_names_the_package_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.InputError, match="--projector needs tensorboardX: pip install"):
        explore_page.write_projector(tmp_path, np.ones((3, 2), np.float32), None, None)


def test_a_run_without_checkpoints_says_how_to_mend_that():
    class Run:
        checkpoints = types.SimpleNamespace(steps=[])

        def judged(self):
            raise errors.InputError("it holds no checkpoint")

    with pytest.raises(errors.InputError, match="it holds no checkpoint"):
        next(explore_page.embeddings_of_checkpoints(Run(), None))
