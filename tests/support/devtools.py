"""A page of a server, used in a headless Chromium as a person does: by mouse and keyboard.

Chromium is driven by its DevTools protocol through two pipes, which needs no other package.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time

from tests.support import browser

TIMEOUT = 60
# Chromium reads from descriptor 3 and writes to 4. The first two numbers are what they are before.
_AS_3_AND_4 = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for high, wanted in zip(ours, (3, 4)):
    os.dup2(high, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def opened(address, folder):
    """A tab that shows an address; the browser ends with the block."""
    (read, their_write), (their_read, write) = os.pipe(), os.pipe()
    flags = [*browser.ALWAYS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", _AS_3_AND_4, str(their_read), str(their_write)]
        + [browser.CHROMIUM, *flags, "--window-size=1200,900", "about:blank"],
        pass_fds=(their_read, their_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    os.close(their_read)
    os.close(their_write)
    tab = Tab(read, write)
    try:
        tab.open(address)
        yield tab
        tab.close()
        process.wait(TIMEOUT)
    finally:
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)


class Tab:
    """One page of a browser.

    Args:
      read: the descriptor from which the browser's messages come.
      write: the descriptor that takes commands.
    """

    def __init__(self, read, write):
        self._read, self._write = read, write
        self._session, self._number, self._rest = None, 0, b""
        self.errors = []
        """What the page complained of: exceptions, and what the browser refused to it."""

    def open(self, address):
        """Shows an address."""
        if self._session is None:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "DOM"):
                self.send(f"{domain}.enable")
        self.send("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank'")

    def close(self):
        """Ends the browser."""
        self._session = None
        self.send("Browser.close")

    def send(self, method, **parameters):
        """Gives a command, and returns its answer."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self._number:
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]["exceptionDetails"]))
            if message.get("method") == "Log.entryAdded":
                self.errors.append(message["params"]["entry"]["text"])
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def _next(self):
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], TIMEOUT)[0], "the browser does not answer"
            more = os.read(self._read, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def see(self, script):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script):
        """Waits until the page is loaded and an expression is true in it."""
        end = time.monotonic() + TIMEOUT
        while not self.see(f"document.readyState === 'complete' && Boolean({script})"):
            assert time.monotonic() < end, f"{script} has not become true: {self.errors}"
            time.sleep(0.02)

    def drop(self, *files, at=(600, 500)):
        """Drags files from the desktop, and drops them on the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        x, y = at
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector, *files):
        """Chooses files for an <input>, as its dialog does."""
        found = self.send("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        handle = found["result"]["objectId"]
        self.send("DOM.setFileInputFiles", files=[str(f) for f in files], objectId=handle)

    def press(self, key, code):
        """Presses a key, such as ("Tab", 9) or ("Enter", 13)."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)
