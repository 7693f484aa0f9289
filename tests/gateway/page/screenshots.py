"""`python -m tests.gateway.page.screenshots` takes the pictures in docs/ anew."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from muxcore.board.state_dir import default_path
from muxcore.gateway import Gateway, ReloadingPool
from muxcore.gateway.page.files import page_address
from muxcore.shell import clock
from muxcore.standin import Model, StandInServer
from tests.gateway.conftest import TOKEN, config
from tests.gateway.page.browser import Browser, running_browser
from tests.gateway.page.long_journal import write_journal
from tests.gateway.page.test_timeline import show_the_earlier_journal

DOCS = Path(__file__).resolve().parents[3] / "docs"
SIZE = (1200, 1000)
SHORTLY_BEFORE = """
const slider = document.getElementById("slider");
slider.value = slider.max - (slider.max - slider.min) * 0.22;
slider.dispatchEvent(new Event("input"));
"""


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        env = {**os.environ, "XDG_STATE_HOME": str(folder)}
        write_journal(default_path(env), 2_500, clock.now() - timedelta(minutes=5))
        upstream = stack.enter_context(
            StandInServer([Model("large-model"), Model("small-model")])
        )
        made = config(upstream.url, "large", "small", state="file")
        pool = ReloadingPool(made, env=env)
        stack.callback(pool.close)
        gateway = stack.enter_context(Gateway(pool, TOKEN))
        browser = stack.enter_context(running_browser(folder / "profile"))
        take(browser, page_address(gateway.url, TOKEN))
    return 0


def take(browser: Browser, address: str) -> None:
    browser.driver.set_window_size(*SIZE)
    browser.scheme("light")
    browser.open(address)
    browser.wait_for("of 2", "#sums")
    show_the_earlier_journal(browser)
    answered = browser.text("#sums")
    browser.run(SHORTLY_BEFORE)
    browser.wait(lambda: browser.text("#sums") != answered)
    browser.driver.save_screenshot(str(DOCS / "page.png"))
    browser.scheme("dark")
    call = next(one for one in browser.all("#calls button") if "→" in one.text)
    browser.run("arguments[0].click()", call)
    browser.wait(lambda: browser.find("#story").is_displayed())
    browser.driver.save_screenshot(str(DOCS / "page-story.png"))


if __name__ == "__main__":
    sys.exit(main())
