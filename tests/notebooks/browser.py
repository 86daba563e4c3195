"""A real JupyterLab and a real Chromium, for tests that press a reader's keys.

Chromium is driven by its DevTools protocol, over the websocket client that JupyterLab's server brings along, so a
test needs nothing that the course doesn't install, except the browser.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # or else it doesn't start as root, and it only ever sees pages of this machine
    "--disable-gpu",
    "--disable-dev-shm-usage",  # which is too small in many a container
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1400,1100",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
SETTINGS = {
    # By default only the cells near the screen are in the page.
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',
    # By default it asks about news, right over a notebook, and looks for updates.
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
# key -> its name on the keyboard, its number, what it types
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
}
START_SECONDS = 120  # for a server or a browser, on a machine that is busy with other tests
STOP_SECONDS = 20
ANSWER_SECONDS = 120

_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine's servers


class BrowserError(AssertionError):
    """A browser, or a page in it, doesn't do what it should."""


class BrowserTimeout(BrowserError):
    """What was waited for didn't happen in time."""


def find_browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def wait_for(condition: Callable[[], Any], seconds: float, otherwise: Callable[[], str]) -> Any:
    """Ask again and again until ``condition`` gives something true, and return that.

    The longer it takes, the rarer: asking a page costs it work as well.

    Raises:
        BrowserTimeout: it hasn't within ``seconds``; ``otherwise`` tells what was seen instead.
    """
    start = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - start
        if waited > seconds:
            raise BrowserTimeout(f"{otherwise()} (waited {seconds:.0f} s)")
        time.sleep(min(0.05 + waited / 50, 0.5))
    return found


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own, of which nothing is left behind."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()  # asks first, for a Jupyter server shuts down its kernels, whose groups are their own
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs.

    Attributes:
        folder: with the notebooks.
    """

    folder: Path
    _url: str
    _token: str

    def address(self, name: str) -> str:
        """The page of a notebook, in a workspace of its own: no other notebook is open there."""
        return f"{self._url}lab/workspaces/{Path(name).stem}/tree/{name}?token={self._token}"

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Whatever kernels are started meanwhile are shut down in the end, so that they don't keep their memory."""
        try:
            yield
        finally:
            for kernel in self.ask("GET", "kernels"):
                self.ask("DELETE", f"kernels/{kernel['id']}")

    def ask(self, method: str, what: str) -> Any:
        """The server's answer to one request; None if it has none to give."""
        headers = {"Authorization": f"token {self._token}"}
        request = urllib.request.Request(f"{self._url}api/{what}", headers=headers, method=method)
        with _local.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.loads(answer.read() or "null")


@contextmanager
def jupyterlab(folder: Path, scratch: Path) -> Iterator[Lab]:
    """A JupyterLab over the notebooks in ``folder``, as somebody would find it who has just installed it.

    Args:
        folder: with the notebooks; JupyterLab may write there.
        scratch: for its settings, workspaces and log, so that those of whoever runs the tests don't matter.
    """
    places = {
        "JUPYTER_CONFIG_DIR": scratch / "config",
        "JUPYTER_DATA_DIR": scratch / "share",
        "JUPYTER_RUNTIME_DIR": scratch / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": scratch / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": scratch / "workspaces",
        "IPYTHONDIR": scratch / "ipython",
    }
    for name, text in SETTINGS.items():
        path = places["JUPYTERLAB_SETTINGS_DIR"] / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--ServerApp.allow_root=True",
        f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = scratch / "jupyterlab.log"
    with running(command, log, **{name: str(place) for name, place in places.items()}) as server:

        def answers() -> Lab | None:
            if server.poll() is not None:
                raise BrowserError(f"JupyterLab didn't start:\n{log.read_text()[-2000:]}")
            with suppress(OSError, ValueError):  # not there, not yet whole, not yet listening
                (record,) = places["JUPYTER_RUNTIME_DIR"].glob("jpserver-*.json")
                lab = Lab(folder, json.loads(record.read_text())["url"], token)
                lab.ask("GET", "status")
                return lab
            return None

        yield wait_for(answers, START_SECONDS, lambda: f"JupyterLab doesn't answer:\n{log.read_text()[-2000:]}")


class Tab:
    """A page in the browser."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=ANSWER_SECONDS, http_no_proxy=["127.0.0.1"])
        self._sent = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._sent += 1
        try:
            self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
            while (answer := json.loads(self._socket.recv())).get("id") != self._sent:
                pass  # an event
        except (OSError, ValueError, websocket.WebSocketException) as error:
            raise BrowserError(f"{method}: the browser doesn't answer ({error or type(error).__name__})") from error
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON has it, or of what it promises."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(f"{script}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def ask(self, function: str, *arguments: Any) -> Any:
        """The same for a JavaScript function and what it is called with."""
        return self.evaluate(f"({function})({', '.join(json.dumps(argument) for argument in arguments)})")

    def press(self, key: str) -> None:
        """Press a key and let it go; whatever has the focus gets it."""
        code, number, text = KEYS[key]
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        typed = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **typed, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self, path: Path) -> Path:
        """What the page looks like now, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return path

    def close(self) -> None:
        self._socket.close()


class Browser:
    """A Chromium that runs, by the address of its DevTools."""

    def __init__(self, address: str) -> None:
        self._address = address

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new page, closed in the end whatever it is doing."""
        target = json.loads(self.ask("PUT", "new?about:blank"))
        tab = Tab(target["webSocketDebuggerUrl"])
        try:
            tab.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a window without focus gets no keys
            yield tab
        finally:
            tab.close()
            self.ask("GET", f"close/{target['id']}")

    def ask(self, method: str, what: str) -> bytes:
        """The answer to one request."""
        request = urllib.request.Request(f"{self._address}/json/{what}", method=method)
        with _local.open(request, timeout=ANSWER_SECONDS) as answer:
            return answer.read()


@contextmanager
def chromium(program: str, scratch: Path) -> Iterator[Browser]:
    """A browser that nobody has used before."""
    profile = scratch / "profile"
    log = scratch / "chromium.log"
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with running(command, log) as process:

        def answers() -> Browser | None:
            if process.poll() is not None:
                raise BrowserError(f"{program} didn't start:\n{log.read_text()[-2000:]}")
            with suppress(OSError, ValueError, IndexError):  # not there, not yet whole, not yet listening
                port = int((profile / "DevToolsActivePort").read_text().splitlines()[0])
                browser = Browser(f"http://127.0.0.1:{port}")
                browser.ask("GET", "version")
                return browser
            return None

        yield wait_for(answers, START_SECONDS, lambda: f"{program} doesn't answer:\n{log.read_text()[-2000:]}")
    shutil.rmtree(profile, ignore_errors=True)  # tens of megabytes
