#!/usr/bin/env python3
"""Checks mails as a mail program shows them: 360 and 1200 pixels wide, light and dark, in headless Chromium.

    look.py HTML_FOLDER OUT_FOLDER

Takes a picture of every .html file in HTML_FOLDER (written by `ace render --out`) into OUT_FOLDER, and checks it: nothing may
extend beyond the window, and the contrast of every text must meet WCAG 2.1, level AA (4.5:1, large text 3:1). Prints each fault
on a line, and exits with 1 if there is one. Chromium is controlled over a pipe, so that only Python and Chromium are
needed.
"""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (360, 1200)
SCHEMES = ("light", "dark")
# Seconds; a page takes a tenth of a second.
PATIENCE = 60

# Runs in the page. Returns its faults.
LOOK = r"""
(() => {
  const faults = [];
  const shown = (element) => (element.id || element.className || element.tagName).toString().slice(0, 40);
  const wide = document.documentElement.scrollWidth;
  if (wide > window.innerWidth) {
    const culprit = [...document.querySelectorAll("body *")].find((e) => e.getBoundingClientRect().right > window.innerWidth + 1);
    faults.push(`reaches ${wide - window.innerWidth} pixels beyond the window (${culprit ? shown(culprit) : "?"})`);
  }
  const parse = (color) => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1,
  });
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const canvas = dark && getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), parse(canvas));
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || /^[\s\u034f\u200c\u00a0]*$/.test(text) || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const [a, b] = [luminance(over(parse(style.color), ground)), luminance(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < needed) faults.push(`"${text.slice(0, 40)}" has a contrast of ${contrast.toFixed(1)}, less than ${needed} (${shown(element)})`);
  }
  if (!texts) faults.push("shows no text at all");
  const language = document.querySelector("[lang]");
  const direction = getComputedStyle(language || document.body).direction;
  const rightToLeft = language && /^(ar|fa|he|ur)\b/.test(language.lang);
  if (rightToLeft && direction !== "rtl") faults.push(`is in ${language.lang} and runs from left to right`);
  return faults;
})()
"""


class Chromium:
    """A browser over --remote-debugging-pipe: JSON messages that end in a zero byte."""

    def __init__(self, profile):
        command = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if command is None:
            sys.exit("chromium is missing: tests/apt.sh chromium=chromium")
        (read_in, self.write), (self.read, write_out) = os.pipe(), os.pipe()
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        ]

        def places():
            # The browser reads from 3 and writes to 4, whatever the numbers of the pipes are.
            os.dup2(os.dup(read_in), 3)
            os.dup2(os.dup(write_out), 4)

        read_in, write_out = self.above(read_in), self.above(write_out)
        self.child = subprocess.Popen(
            [command, *arguments], preexec_fn=places, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_in)
        os.close(write_out)
        self.unread, self.number, self.session = b"", 0, None

    @staticmethod
    def above(number):
        """The same pipe under a number other than 3 and 4."""
        import fcntl

        other = fcntl.fcntl(number, fcntl.F_DUPFD, 20)
        os.close(number)
        return other

    def message(self):
        while b"\0" not in self.unread:
            part = os.read(self.read, 1 << 20)
            if not part:
                sys.exit("chromium ended early")
            self.unread += part
        text, _, self.unread = self.unread.partition(b"\0")
        return json.loads(text)

    def ask(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"chromium: {method}: {answer['error']['message']}")
                return answer["result"]

    def wait_for(self, event):
        while self.message().get("method") != event:
            pass

    def open_page(self):
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def look(self, page, width, scheme, picture):
        """The page's faults."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")
        answer = self.ask("Runtime.evaluate", expression=LOOK, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{page}: {answer['exceptionDetails']}")
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        picture.write_bytes(base64.b64decode(shot["data"]))
        return answer["result"]["value"]

    def end(self):
        self.child.kill()
        self.child.wait()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pages = sorted(Path(sys.argv[1]).resolve().glob("*.html"))
    out = Path(sys.argv[2])
    if not pages:
        sys.exit(f"there is no .html in {sys.argv[1]}")
    out.mkdir(parents=True, exist_ok=True)
    faults = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Chromium(profile)
        try:
            browser.open_page()
            for page in pages:
                for scheme in SCHEMES:
                    for width in WIDTHS:
                        look = f"{page.stem}-{width}-{scheme}"
                        for fault in browser.look(page, width, scheme, out / f"{look}.png"):
                            faults += 1
                            print(f"{look}: {fault}")
        finally:
            browser.end()
    print(f"{len(pages)} pages, {len(pages) * len(WIDTHS) * len(SCHEMES)} looks, {faults} faults", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    import signal

    # A hanging browser must not block the test.
    signal.alarm(PATIENCE * 10)
    main()
