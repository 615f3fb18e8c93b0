# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium without a network, driven through a pipe (DevTools protocol). Nothing but the standard library."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_NETWORK = next((prefix for prefix in (["unshare", "-n"], ["unshare", "-rn"]) if shutil.which("unshare") and
                   subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0), [])
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--force-color-profile=srgb", "--remote-debugging-pipe"]
SECONDS = 20  # for an answer
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13, "Escape": 27, "Home": 36,
        "End": 35, "PageDown": 34, " ": 32}


class Browser:
    """One page, and what went wrong or over the network on it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, answers = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands[0], answers[1])]

        def third_and_fourth():
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*NO_NETWORK, PROGRAM, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=third_and_fourth, pass_fds=(3, 4),
            start_new_session=True, env={**os.environ, "HOME": self.folder.name})
        for end in (commands[0], answers[1], *theirs):
            os.close(end)
        self.write, self.read, self.buffer = commands[1], answers[0], b""
        self.count, self.session = 0, None
        self.requests, self.blocked, self.troubles, self.dialogs = {}, [], [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(SECONDS)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write)
        os.close(self.read)
        self.folder.cleanup()

    def message(self, until):
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, until - time.monotonic()))[0]:
                raise AssertionError("the browser does not answer")
            part = os.read(self.read, 1 << 20)
            if not part:
                raise AssertionError("the browser has ended")
            self.buffer += part
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def noted(self, message):
        method, given = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests[given["requestId"]] = given["request"]["url"]
        elif method == "Network.loadingFailed" and given.get("blockedReason") == "csp":
            self.blocked.append(self.requests.pop(given["requestId"]))
        elif method == "Runtime.exceptionThrown":
            self.troubles.append(given["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.troubles.append(str(given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.troubles.append(given["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(given["message"])

    def call(self, method, **given):
        self.count += 1
        message = {"id": self.count, "method": method, "params": given}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data):]
        until = time.monotonic() + SECONDS
        while True:
            answer = self.message(until)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self.noted(answer)

    # As a reader does ----------------------------------------------------------------------------------------------

    def open(self, url, width=1400, height=1000, dark=False):
        self.requests, self.blocked, self.troubles, self.dialogs = {}, [], [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def wait(self, script):
        until = time.monotonic() + SECONDS
        while not self.run(script):
            if time.monotonic() > until:
                raise AssertionError(f"never true: {script}")
            time.sleep(0.02)

    def settled(self):
        """When what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 0)))")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def box(self, selector):
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        return self.run(f"(({{left, top, width, height}}) => [left, top, width, height])"
                        f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")

    def hover(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settled()

    def click(self, selector):
        left, top, width, height = self.box(selector)
        self.click_at(left + width / 2, top + height / 2)

    def click_at(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1,
                      buttons=1 if kind == "mousePressed" else 0)
        self.settled()

    def press(self, key, times=1, shift=False):
        code = KEYS.get(key, ord(key.upper()[0]))
        for _ in range(times):
            typed = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code,
                      modifiers=8 if shift else 0, **typed)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
        self.settled()

    def screenshot(self, path, full=True):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
