"""The time line in a real browser: to any moment and back, and the story of a call."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from muxcore.board.state_dir import default_path
from muxcore.gateway.page.files import page_address
from muxcore.shell import clock
from muxcore.standin import Stall, rate_limited
from tests.gateway.conftest import TOKEN, Served
from tests.gateway.page.browser import NARROW, WIDE, Browser
from tests.gateway.page.canaries import KEY, PROMPT, with_key
from tests.gateway.page.long_journal import write_journal

Serve = Callable[..., Served]
CHOOSE = """
const select = document.getElementById(arguments[0]);
select.selectedIndex = arguments[1];
select.dispatchEvent(new Event("change"));
"""
JOURNAL, SPAN, EVERYTHING = "journal", "span", 4


@pytest.fixture
def served(serve: Serve) -> Served:
    """A pool whose first model was limited, and an earlier process in the same file."""
    write_journal(default_path(os.environ), 1_500, clock.now())
    env = {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"], "CANARY_KEY": KEY}
    served = serve(source=with_key, env=env, section={"state": "file"})
    served.large.then(rate_limited(timedelta(seconds=90)))
    served.ask(messages=[{"role": "user", "content": PROMPT}])
    return served


def show(browser: Browser, served: Served) -> None:
    browser.open(page_address(served.gateway.url, TOKEN))
    browser.wait(lambda: browser.all("#calls button"))


def show_the_earlier_journal(browser: Browser) -> None:
    browser.run(CHOOSE, JOURNAL, 1)
    browser.wait_for("As of", "#moment")
    browser.wait(lambda: browser.all("#calls button"))


def slider_text(browser: Browser) -> str | None:
    return browser.find("#slider").get_attribute("aria-valuetext")


def test_dragging_shows_the_whole_page_of_then_and_back(
    served: Served, browser: Browser
) -> None:
    show(browser, served)
    assert slider_text(browser) == "now"
    show_the_earlier_journal(browser)
    answered = browser.text("#sums")
    slider = browser.find("#slider")
    drag = ActionChains(browser.driver).move_to_element(slider).click_and_hold()
    drag.move_by_offset(-200, 0).move_by_offset(-100, 0).release().perform()
    browser.wait(lambda: browser.text("#sums") != answered)
    assert browser.text("#moment") == f"As of {slider_text(browser)}"
    browser.find("#live").click()
    browser.wait_for("Live, ", "#moment")
    browser.wait_for("1 of 2", "#sums")
    assert slider_text(browser) == "now"


def test_the_keyboard_alone_reaches_any_moment(served: Served, browser: Browser) -> None:
    show(browser, served)
    show_the_earlier_journal(browser)
    slider = browser.find("#slider")
    moments = [slider_text(browser)]
    for key in (Keys.ARROW_LEFT, Keys.PAGE_DOWN, Keys.HOME):
        slider.send_keys(key)
        browser.wait(lambda: slider_text(browser) != moments[-1])
        moments.append(slider_text(browser))
        browser.wait_for(f"As of {moments[-1]}", "#moment")
    earliest = slider.get_attribute("min")
    browser.find("#earlier").send_keys(Keys.ENTER)
    browser.wait(lambda: slider.get_attribute("min") != earliest)
    browser.find("#live").send_keys(Keys.ENTER)
    browser.wait_for("Live, ", "#moment")


def test_every_model_has_a_lane(served: Served, browser: Browser) -> None:
    show(browser, served)
    show_the_earlier_journal(browser)
    browser.run(CHOOSE, SPAN, EVERYTHING)
    drawn = """
    const canvas = document.getElementById("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const found = new Set();
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] === 255) found.add([data[i], data[i + 1], data[i + 2]].join());
    }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).match(/\\w\\w/g).map((h) => parseInt(h, 16)).join();
    return ["--open", "--on-probation", "--disabled", "--accent"].filter((name) => !found.has(colour(name)));
    """
    browser.wait(lambda: browser.run(drawn) == [])
    assert int(browser.find("#lanes").size["height"]) > 3 * 50


def test_a_click_on_a_call_tells_its_story(served: Served, browser: Browser) -> None:
    show(browser, served)
    call = browser.find("#calls button")
    assert "large → small" in browser.text("#calls")
    call.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.find("#story").is_displayed())
    story = browser.text("#story")
    assert "served by small" in story
    assert "large: rate limited after" in story
    whole = browser.run("return document.documentElement.outerHTML")
    assert [secret for secret in (KEY, PROMPT, TOKEN) if secret in whole] == []
    browser.find("#close-story").send_keys(Keys.ESCAPE)
    browser.wait(lambda: not browser.find("#story").is_displayed())
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("data-call") is not None


def test_axe_finds_nothing_serious_in_a_story(served: Served, browser: Browser) -> None:
    show(browser, served)
    browser.find("#calls button").click()
    browser.wait(lambda: browser.find("#story").is_displayed())
    assert browser.findings() == []


def test_a_screen_reader_is_told_everything(served: Served, browser: Browser) -> None:
    show(browser, served)
    spoken = browser.spoken()
    assert spoken["heading"] >= {
        "vibe-mux",
        "Models",
        "large",
        "small fallback",
        "Time line",
        "Calls",
    }
    assert spoken["article"] == {"large", "small fallback"}
    assert spoken["slider"] == {"Moment to show: now"}
    assert {"Earlier", "Later"} <= spoken["button"]
    assert any("large → small served" in name for name in spoken["button"])
    browser.find("#calls button").click()
    browser.wait(lambda: browser.find("#story").is_displayed())
    (dialog,) = browser.spoken()["dialog"]
    assert "served by small" in dialog


def test_a_call_under_way_is_shown_as_such(served: Served, browser: Browser) -> None:
    show(browser, served)
    served.small.then(Stall(1))
    answer = served.ask(stream=True)
    browser.wait_for("under way", "#calls")
    assert "1" in browser.text("#sums div:nth-child(2)")
    served.small.release()
    answer.close()
    browser.wait(lambda: "under way" not in browser.text("#calls"))


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", NARROW), ("dark", WIDE)],
    ids=["light and narrow", "dark and wide"],
)
def test_axe_finds_nothing_serious_in_the_past(
    served: Served, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    browser.scheme(scheme)
    browser.driver.set_window_size(*size)
    show(browser, served)
    show_the_earlier_journal(browser)
    assert browser.findings() == []
    assert browser.run("return document.body.scrollWidth <= innerWidth")
