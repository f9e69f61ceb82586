"""Drives headless Chromium for the scenarios of the page. In: one JSON object a line, from the scenario's socket, whose address is the only argument.
Out: one JSON object a line: `{"ok": ...}`, or `{"failed": "why"}`. `e2e/src/browser.rs` is the other side.

Note: the page's policy forbids eval, so Playwright's `wait_for_function` fails on it; locators and `expect` do not need it.
"""

import json
import os
import re
import socket
import sys

import axe_playwright_python
from playwright.sync_api import expect, sync_playwright

# Longest wait for one condition, in milliseconds.
SOON = 30_000
# More stops than the keyboard ever makes on a page of the scenarios.
MOST_STOPS = 300

AXE = os.path.join(os.path.dirname(axe_playwright_python.__file__), "axe.min.js")

# The visible elements that take the keyboard's focus, and the one that has it.
FOCUSABLE = """() => [...document.querySelectorAll('button, input, a[href], summary, [tabindex="0"]')]
  .filter((one) => one.checkVisibility() && !one.disabled && !one.closest('dialog:not([open])'))
  .map((one) => one.getAttribute('aria-label') || one.id || one.textContent)"""
FOCUSED = """() => { const one = document.activeElement;
  return one && one !== document.body ? one.getAttribute('aria-label') || one.id || one.textContent : null; }"""
# Pixels by which the page is wider than the window.
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# The colours that a canvas has at nine places.
COLOURS = """(canvas) => { const { width, height } = canvas; const found = new Set();
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  for (let x = 1; x < 4; x++) for (let y = 1; y < 4; y++) {
    const at = 4 * (Math.floor(height * y / 4) * width + Math.floor(width * x / 4));
    found.add(data.slice(at, at + 4).join());
  }
  return [width, height, found.size]; }"""


class Driver:
    """One browser with one page."""

    def __init__(self, browser):
        self.browser = browser
        self.context = None
        self.page = None
        self.complaints = []

    def open(self, url, width, height, dark):
        """Opens a page in a window of its own, and closes the one before."""
        if self.context:
            self.context.close()
        self.context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            device_scale_factor=1,
            has_touch=width < 500,
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(SOON)
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.on("request", lambda request: self.requested(url, request))
        self.page.goto(url)

    def heard(self, message):
        # The browser itself reports every answer that is not good: those are part of some scenarios.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(f"console: {message.text}")

    def requested(self, url, request):
        if not request.url.startswith((url, "data:", "blob:")):
            self.complaints.append(f"requested elsewhere: {request.url}")

    def place(self, place):
        """The element that a path of names leads to: a stream or a section, and in it the row of this name."""
        names = [name for name in place.split("/") if name]
        if not names:
            return self.page.locator("body")
        found = self.page.get_by_role("article", name=names[0], exact=True)
        found = found.or_(self.page.get_by_role("region", name=names[0], exact=True)).first
        for name in names[1:]:
            header = self.page.locator("th", has_text=re.compile(rf"^{re.escape(name)}\b"))
            found = found.locator("tr").filter(has=header)
        return found

    def shows(self, place, text):
        expect(self.place(place)).to_contain_text(text, timeout=SOON, use_inner_text=True)

    def lacks(self, place, text):
        expect(self.place(place)).not_to_contain_text(text, timeout=SOON, use_inner_text=True)

    def misses(self, place):
        expect(self.place(place)).to_have_count(0, timeout=SOON)

    def press(self, place, button):
        self.place(place).get_by_role("button", name=button, exact=True).click()

    def fill(self, label, text):
        self.page.get_by_role("textbox", name=label, exact=True).fill(text)

    def type_enter(self):
        self.page.keyboard.press("Enter")

    def reach(self, label):
        """Moves the keyboard's focus to the element of this label by Tab alone."""
        for _ in range(MOST_STOPS):
            if self.page.evaluate(FOCUSED) == label:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {label!r}")

    def focus(self):
        return self.page.evaluate(FOCUSED)

    def unreached(self):
        """The elements that the keyboard should reach and does not."""
        reached = set()
        for _ in range(MOST_STOPS):
            self.page.keyboard.press("Tab")
            focused = self.page.evaluate(FOCUSED)
            if focused is None and reached.issuperset(self.page.evaluate(FOCUSABLE)):
                break
            reached.add(focused)
        return sorted(set(self.page.evaluate(FOCUSABLE)) - reached)

    def axe(self):
        """What axe reports about the page as it is now."""
        with open(AXE, encoding="utf-8") as source:
            self.page.evaluate(source.read())
        report = self.page.evaluate("axe.run()")
        return [f"{one['id']}: {node['html'][:200]}: {node['failureSummary']}" for one in report["violations"] for node in one["nodes"]]

    def too_wide(self):
        return self.page.evaluate(TOO_WIDE)

    def canvas(self, place):
        """Width, height and number of colours of the picture at a place, once there are several."""
        picture = self.place(place).locator("canvas").first
        picture.wait_for(state="visible")
        return picture.evaluate(COLOURS)

    def picture(self, path, whole):
        self.page.evaluate("document.activeElement && document.activeElement.blur()")
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.screenshot(path=path, full_page=whole, animations="disabled", caret="hide")

    def complained(self):
        """What the page has complained of so far."""
        said, self.complaints = self.complaints, []
        return said


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection, sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        driver = Driver(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]))
        orders = connection.makefile("r", encoding="utf-8")
        for line in orders:
            order = json.loads(line)
            try:
                answer = {"ok": getattr(driver, order[0])(*order[1:])}
            except Exception as error:  # The scenario decides: every failure is its own.
                answer = {"failed": f"{error}\nthe page: {driver.page.locator('body').inner_text() if driver.page else ''}"}
            connection.sendall((json.dumps(answer) + "\n").encode())
        driver.browser.close()


main()
