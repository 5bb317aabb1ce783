"""A page in a headless Chromium, without a network."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
needed = pytest.mark.skipif(not CHROMIUM, reason="needs chromium to open the page")

# What the browser finds is written where --dump-dom shows it.
_PROBE = """<script>
window.addEventListener("error", e => document.title = "ERROR " + e.message);
window.addEventListener("load", () => setTimeout(() => {
  const found = (() => { %s })();
  document.body.dataset.found = JSON.stringify(found);
}, 1500));
</script></head>"""


ALWAYS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
ALWAYS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
# Waits of the page pass at once.
_QUICKLY = (*ALWAYS, "--virtual-time-budget=8000")


def printed(page: str, folder) -> str:
    """The text of the page as it is printed, by pdftotext."""
    file, pdf = folder / "page.html", folder / "page.pdf"
    file.write_text(page)
    where = [f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={pdf}", file.as_uri()]
    quiet = {"capture_output": True, "timeout": 120, "check": True}
    subprocess.run([CHROMIUM, *_QUICKLY, *where], env=os.environ | {"HOME": str(folder)}, **quiet)
    done = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], text=True, **quiet)
    return done.stdout


def look(page: str, script: str, folder, *, dark: bool = False):
    """What `script`, the body of a function, returns in the page; no error may be logged."""
    file = folder / "page.html"
    file.write_text(page.replace("</head>", _PROBE % script, 1))
    flags = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [
            *(CHROMIUM, *_QUICKLY, f"--user-data-dir={folder / 'profile'}"),
            *("--window-size=1200,800", *flags),
            *("--enable-logging=stderr", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HOME": str(folder)},
    )
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
    assert "<title>ERROR" not in done.stdout
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    return json.loads(html.unescape(found))
