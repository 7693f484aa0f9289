"""A real Chromium, without a window: what it shows, and what it complains about."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NO_BROWSER = "no browser: put chromium and chromedriver on the path"
AXE = find_spec("axe_selenium_python")
HAS_AXE = AXE is not None
NO_AXE = "no axe: its package needs Python 3.12 or newer"
WIDE, NARROW = (1280, 900), (500, 900)
"""In CSS pixels. A window of Chromium is not narrower than the second."""
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERIOUS = {"serious", "critical"}


@frozen(eq=False)
class Browser:
    """One window."""

    driver: Chrome

    def open(self, address: str) -> None:
        # With another fragment alone, a browser would load nothing.
        self.driver.get("about:blank")
        self.driver.get(address)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        # Read in one step, as the page replaces its elements all the time.
        found: str = self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return found

    def wait(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: condition())

    def wait_for(self, text: str, selector: str = "body") -> None:
        self.wait(lambda: text in self.text(selector))

    def scheme(self, name: str) -> None:
        """Prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self) -> list[str]:
        """Return the errors and warnings of its console since the last time."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def sent(self) -> str:
        """Return what it has sent and received since the last time, but for bodies."""
        entries: list[dict[str, Any]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        return json.dumps([entry["message"] for entry in entries])

    def spoken(self) -> dict[str, set[str]]:
        """Return the names that a screen reader says, with values, by their roles."""
        tree = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        found: dict[str, set[str]] = defaultdict(set)
        for node in tree["nodes"]:
            if not node["ignored"]:
                name = node.get("name", {}).get("value", "")
                values = [
                    one["value"]["value"]
                    for one in node.get("properties", ())
                    if one["name"] == "valuetext"
                ]
                found[node["role"]["value"]].add(": ".join([name, *filter(None, values)]))
        return found

    def findings(self) -> list[str]:
        """Return what axe finds that is serious."""
        if AXE is None or AXE.origin is None:
            pytest.skip(NO_AXE)
        script = Path(AXE.origin).with_name("node_modules") / "axe-core" / "axe.min.js"
        self.run(script.read_text("utf-8"))
        done = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(done)"
        )
        return [
            f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
            for one in done["violations"]
            if one["impact"] in SERIOUS
        ]


@contextmanager
def running_browser(profile: Path) -> Generator[Browser]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
