"""The page on which a picture is dropped, and the same for a program."""

import asyncio
import contextlib
import http.client
import io
import os
import re
import shutil
import signal
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import uvicorn
from starlette.testclient import TestClient

from experiments import serve
from experiments.run import (
    embedders,
    galleries,
    lock,
    search_page,
    search_threshold,
    served_gallery,
)
from tests.support import browser, devtools, programs

ADDRESS = "http://127.0.0.1:8000"
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def folder(own_run, tmp_path_factory):
    """A gallery of which one image has a name that would be markup, and another is lost later."""
    folder = shutil.copytree(own_run[0], tmp_path_factory.mktemp("served") / "images")
    shutil.copy(next(folder.glob("one/*.png")), folder / "one" / "<b onload=alert(1)>.png")
    shutil.copy(same_as_lost(folder), folder / "zz-lost.png")
    return folder


def same_as_lost(folder):
    """The image of which the lost one is a copy."""
    return min(folder.glob("two/*.png"))


@pytest.fixture(scope="module")
def embedder(own_run):
    return embedders.load_embedder(own_run[1])


@pytest.fixture(scope="module")
def served(own_run, folder, embedder):
    """The gallery in memory."""
    place = folder.parent / "gallery"
    place.mkdir()
    threshold = search_threshold.by_validation(own_run[1], embedder, 0.05)
    listing = embedders.find(own_run[1], folder)
    with galleries.following(place, listing, embedder, dim=embedder.dim) as found:
        made = served_gallery.ServedGallery(folder, found, embedder, threshold, neighbours=4)
    shutil.rmtree(place)  # it is needed no more
    (folder / "zz-lost.png").unlink()
    return made


@pytest.fixture(scope="module")
def app(served):
    with ThreadPoolExecutor(1) as worker:
        yield search_page.application(served, worker=worker, hosts=["127.0.0.1"], limit=1)


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app, base_url=ADDRESS)


def some(folder, count):
    """Images of several classes."""
    return sorted(file for file in folder.glob("*/*") if file.name[0].isdigit())[::11][:count]


def test_ten_at_once_are_answered_each_with_its_own_neighbours(client, served, folder, embedder):
    files = sorted(folder.glob("*/*"))
    everything = embedder([*files, same_as_lost(folder)])
    asked = some(folder, 10)

    def ask(file, by_form):
        if by_form:
            return client.post("/search", files={"picture": (file.name, file.read_bytes())})
        return client.post("/search", content=file.read_bytes(), headers=JPEG)

    with ThreadPoolExecutor(10) as people:
        answers = list(people.map(ask, asked, [True, False] * 5))
    accepted = served.threshold.accepted.threshold
    for file, answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200
        found = answer.json()
        assert found["threshold"] == pytest.approx(accepted)
        d = np.linalg.norm(everything - everything[files.index(file)], axis=1)
        expected = np.sort(d)[:4]
        assert [one["rank"] for one in found["neighbours"]] == [1, 2, 3, 4]
        np.testing.assert_allclose(
            [one["distance"] for one in found["neighbours"]], expected, atol=1e-5
        )
        for one in found["neighbours"]:
            path = folder / one["path"]
            if path.exists():  # not the lost one
                assert d[files.index(path)] == pytest.approx(one["distance"], abs=1e-5)
                assert one["class"] == path.parent.name
            assert one["verdict"] == ("same" if one["distance"] <= accepted else "different")
    assert len({answer.json()["neighbours"][0]["path"] for answer in answers}) == 10


def test_a_neighbour_is_shown_as_the_encoder_sees_it(client, folder, embedder):
    file = some(folder, 1)[0]
    found = client.post("/search", content=file.read_bytes()).json()["neighbours"][0]
    assert folder / found["path"] == file
    shown = client.get(found["thumbnail"])
    assert shown.headers["content-type"] == "image/jpeg"
    with PIL.Image.open(io.BytesIO(shown.content)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels - embedder.shown.read(str(file))).mean() < 3


def form_of(*contents):
    return {"files": [("picture", ("photo.jpg", content)) for content in contents]}


def in_pieces():
    for _ in range(40):
        yield bytes(2**16)


REFUSED = {
    "no image": (form_of(b"words"), 422, "cannot be read as an image: it is none of JPEG"),
    "torn": (form_of(b"\xff\xd8\xff\xe0 torn"), 422, "cannot be read as an image"),
    "empty": (form_of(b""), 400, "No picture was sent"),
    "nothing": ({}, 400, "No picture was sent"),
    "no file": ({"files": {"picture": (None, b"photo.jpg")}}, 400, "No picture was sent"),
    "two": (form_of(b"words", b"words"), 400, "Maximum number of files is 1"),
    "no form": (
        {"content": b"words", "headers": {"content-type": "multipart/form-data"}},
        400,
        "Missing boundary",
    ),
    "large": (form_of(bytes(2**20 + 1)), 413, "larger than 1 MiB", "--upload_limit=1"),
    "huge": (form_of(bytes(2**22)), 413, "larger than 1 MiB", "--upload_limit=1"),
    "endless": ({"content": in_pieces}, 413, "larger than 1 MiB", "--upload_limit=1"),
    "elsewhere": (
        form_of(b"words") | {"headers": {"origin": "http://evil.example"}},
        403,
        "Another page",
    ),
}


@pytest.fixture(scope="module")
def refusals(client):
    """What each request of `REFUSED` is told, as JSON and on the page."""

    def ask(path, request):
        request = dict(request)
        if callable(request.get("content")):
            request["content"] = request["content"]()
        return client.post(path, **request)

    return {
        name: (ask("/search", request), ask("/", request))
        for name, (request, *_) in REFUSED.items()
    }


def test_requests_that_cannot_be_answered_are_told_why(refusals):
    for name, (_, status, *words) in REFUSED.items():
        as_json, page = refusals[name]
        assert as_json.status_code == page.status_code == status, name
        assert as_json.headers["content-type"] == "application/json"
        (alert,) = re.findall('role="alert">([^<]*)<', page.text)
        for word in words:
            assert word in as_json.json()["error"], name
            assert word in alert.replace("&#39;", "'"), name


def test_a_picture_at_the_limit_is_read(client, folder):
    exactly = some(folder, 1)[0].read_bytes().ljust(2**20, b"\0")
    assert client.post("/search", files={"picture": exactly}).status_code == 200


def test_only_images_of_the_gallery_are_served_and_only_here(client, served, folder):
    for path in ("/thumbnails/100000", "/thumbnails/-1", "/thumbnails/../../etc/passwd", "/x"):
        assert client.get(path).status_code == 404
    lost = client.get(f"/thumbnails/{len(served) - 1}")
    assert lost.status_code == 404
    assert "No such file" in lost.json()["error"]
    assert str(folder) not in lost.text
    assert client.get("/search").status_code == 405
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "", "[::1]"):
        for path in ("/", "/thumbnails/0"):
            assert client.get(path, headers={"host": host}).status_code == 400
    assert client.get("/", headers={"host": "127.0.0.1:99"}).status_code == 200  # a tunnel


def test_a_page_may_load_nothing_from_elsewhere_and_names_are_text(client, folder):
    file = folder / "one" / "<b onload=alert(1)>.png"
    sent = {"picture": ("<script>alert(1)</script>.png", file.read_bytes())}
    page = client.post("/", files=sent)
    assert page.status_code == 200
    assert "&lt;b onload=alert(1)&gt;.png" in page.text
    assert "Nearest to &lt;script&gt;alert" in page.text
    assert "<b onload" not in page.text and "<script>" not in page.text
    assert not re.search(r'(src|href|action)="(?!/|data:)', page.text)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    nonces = re.findall(r"'nonce-([^']+)'", policy)
    assert set(re.findall(r'nonce="([^"]+)"', page.text)) == set(nonces)
    assert nonces[0] not in client.get("/").headers["content-security-policy"]
    assert client.get("/thumbnails/0").headers["cache-control"] == "no-store"


def test_somebody_who_leaves_while_a_picture_is_sent_raises_no_error(app):
    answers = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        answers.append(message)

    request = {"type": "http", "method": "POST", "path": "/search", "query_string": b""}
    asyncio.run(app(request | {"headers": [(b"host", b"127.0.0.1")]}, receive, send))
    assert answers[0]["status"] == 400


def test_a_gallery_without_a_threshold_gives_no_verdict(served, folder, monkeypatch, client):
    monkeypatch.setattr(served, "threshold", None)
    content = some(folder, 1)[0].read_bytes()
    answer = client.post("/search", content=content).json()
    assert answer["threshold"] is None
    assert {one["verdict"] for one in answer["neighbours"]} == {None}
    page = client.post("/", files={"picture": content}).text
    assert "--calibration=FOLDER" in page and 'class="verdict"' not in page


# -- over a network ----------------------------------------------------------------------


@contextlib.contextmanager
def listening(app):
    """Serves in a thread, and gives the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(serve.settings(uvicorn, app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def test_others_are_answered_while_pictures_wait_for_each_other(app, served, monkeypatch):
    go, running, most = threading.Event(), [], []

    def slow(encoded):
        running.append(encoded)
        most.append(len(running))
        assert go.wait(60)
        running.remove(encoded)
        return []

    monkeypatch.setattr(served, "nearest", slow)
    with listening(app) as address, ThreadPoolExecutor(3) as people:
        port = int(address.split(":")[-1].strip("/"))
        waiting = [people.submit(post, port, b"picture") for _ in range(3)]
        while not running:
            assert not any(one.done() for one in waiting)
        with urllib.request.urlopen(address, timeout=60) as page:
            assert page.status == 200
        assert not any(one.done() for one in waiting)
        go.set()
        assert {one.result()[0] for one in waiting} == {200}
    assert most == [1, 1, 1]


FOUND = "[...document.querySelectorAll('.found li')].map(one => one.innerText.split(/\\n+/))"
ALERT = "document.querySelector('[role=alert]').innerText"
LOADED = "document.querySelector('.found') && [...document.images].every(one => one.naturalWidth)"
CONTRAST = """(() => {
  const light = rgb => rgb.match(/\\d+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const shown = [...document.querySelectorAll("h1, .faint, .verdict, [role=alert]")];
  return [paper, ...shown.map(one => {
    const ink = light(getComputedStyle(one).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  })];
})()"""


@browser.needed
def test_the_page_finds_the_neighbours_of_a_dropped_photograph(
    app, client, served, folder, tmp_path
):
    photograph = shutil.copy(some(folder, 3)[-1], tmp_path / "a photo & more.jpg")
    expected = client.post("/search", content=photograph.read_bytes()).json()["neighbours"]
    (words := tmp_path / "words.jpg").write_text("words")
    with (huge := tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(60 * 2**20)
    with listening(app) as address, devtools.opened(address, tmp_path) as tab:
        tab.drop(photograph)
        tab.wait_for(LOADED)
        found = tab.see(FOUND)
        assert [one[0] for one in found] == [
            f"{one['distance']:.3f} {one['verdict']}" for one in expected
        ]
        assert [one[1:] for one in found] == [[one["class"], one["path"]] for one in expected]
        assert tab.see("document.title").startswith("Nearest to a photo & more.jpg")
        assert not tab.errors

        for scheme in ("dark", "light"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            tab.send("Emulation.setEmulatedMedia", features=[feature])
            paper, *contrasts = tab.see(CONTRAST)
            assert (paper < 0.1) == (scheme == "dark")
            assert min(contrasts) >= 4.5

        # The page itself says no to a file that is too large; the server, where it does not.
        tab.drop(photograph, words)
        assert tab.see(ALERT) == "Drop one picture at a time."
        tab.drop(huge)
        assert "larger than 1 MiB" in tab.see(ALERT)
        assert tab.see(FOUND) == found
        assert not tab.errors
        tab.see("document.forms[0].dataset.limit = Infinity")
        tab.drop(huge)
        tab.wait_for("document.title.startsWith('Not searched')")
        assert "larger than 1 MiB" in tab.see(ALERT)
        tab.drop(words)
        tab.wait_for(f"{ALERT}.includes('cannot be read as an image')")

        # By keyboard: from the file that was chosen to the button.
        tab.choose("#picture", photograph)
        tab.press("Tab", 9)
        assert tab.see("document.activeElement.id") == "picture"
        tab.press("Tab", 9)
        tab.press("Enter", 13)
        tab.wait_for(LOADED)
        assert tab.see(FOUND) == found
        assert all("Failed to load resource" in error for error in tab.errors)  # 413 and 422


# -- the program -------------------------------------------------------------------------


def test_the_program_serves_until_it_is_stopped(own_run, served, folder, tmp_path):
    workdir = shutil.copytree(own_run[1], tmp_path / "run")
    flags = [f"--workdir={workdir}", f"--gallery={folder}", "--port=0", "--neighbours=4"]
    process = programs.start("serve", *flags, "--false_accept_rate=0.05", "--upload_limit=3")
    said = b""
    while b"Ctrl-C ends it" not in said:
        said += (more := os.read(process.said, 1 << 12))
        assert more, said
    port = int(re.search(rb"listening on http://127\.0\.0\.1:(\d+) ", said)[1])
    file = some(folder, 1)[0]
    assert f'"path":"{file.relative_to(folder)}"' in post(port, file.read_bytes())[1]
    status, answer = post(port, bytes(30 * 2**20))
    assert status == 413 and "larger than 3 MiB" in answer
    # The gallery is free for others, and the port is not.
    assert not lock.is_claimed(next((workdir / "galleries").iterdir()))
    programs.refused(programs.run("serve", *flags, f"--port={port}"), f"--port={port} cannot be")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    assert process.returncode == 0
    assert rest.strip() == "stopped by SIGTERM"


def post(port, content):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        # Sent to the end without leave, as urllib does.
        connection.request("POST", "/search", body=content, headers={"connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
