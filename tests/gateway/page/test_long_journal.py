"""The page over a journal of 100,000 entries: painted at once, dragged without a pause."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from muxcore.board.state_dir import default_path
from muxcore.gateway.page.files import page_address
from muxcore.shell import clock
from tests.gateway.conftest import TOKEN, Served
from tests.gateway.page.browser import HAS_AXE, Browser
from tests.gateway.page.long_journal import write_journal
from tests.gateway.page.test_timeline import (
    CHOOSE,
    EVERYTHING,
    SPAN,
    show_the_earlier_journal,
)

pytestmark = pytest.mark.slow
ENTRIES = 100_000
PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
COUNT_FRAMES = """
window.frames_seen = [];
const count = (time) => { window.frames_seen.push(time); requestAnimationFrame(count); };
requestAnimationFrame(count);
"""
VISIBLE_MS = 250
"""A pause longer than this is seen by everybody; the machine of the tests has other work."""


def test_100000_entries_are_dragged_without_a_visible_pause(
    serve: Callable[..., Served], browser: Browser
) -> None:
    write_journal(default_path(os.environ), ENTRIES, clock.now())
    env = {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]}
    served = serve(env=env, section={"state": "file"})
    served.ask()
    browser.open(page_address(served.gateway.url, TOKEN))
    browser.wait(lambda: browser.all("#calls button"))
    painted = browser.run(PAINTED)
    assert painted < 1000
    show_the_earlier_journal(browser)
    browser.run(CHOOSE, SPAN, EVERYTHING)
    # All of it is loaded meanwhile.
    browser.run(COUNT_FRAMES)
    slider = browser.find("#slider")
    drag = (
        ActionChains(browser.driver, duration=20).move_to_element(slider).click_and_hold()
    )
    for step in range(120):
        drag.move_by_offset(4 if step % 60 < 30 else -4, 0)
    drag.release().perform()
    seen = browser.run("return window.frames_seen")
    pauses = sorted(after - before for before, after in pairwise(seen))
    assert len(seen) > 60
    print(
        f"first paint {painted:.0f} ms; {len(seen)} frames, median {pauses[len(pauses) // 2]:.0f},"
        f" longest {pauses[-1]:.0f} ms"
    )
    assert pauses[-1] < VISIBLE_MS
    browser.wait_for(
        str(browser.find("#slider").get_attribute("aria-valuetext")), "#moment"
    )
    assert browser.complaints() == []
    if HAS_AXE:
        assert browser.findings() == []
