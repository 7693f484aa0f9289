"""The page in a real browser: the pool live, for everybody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from muxcore.gateway.page.files import page_address
from muxcore.standin import rate_limited
from muxcore.standin.script import StatusAnswer
from tests.gateway.conftest import TOKEN, Served
from tests.gateway.page.browser import NARROW, WIDE, Browser

Serve = Callable[..., Served]


def show(browser: Browser, served: Served, token: str = TOKEN) -> None:
    browser.open(page_address(served.gateway.url, token))


def test_the_page_follows_the_pool(serve: Serve, browser: Browser) -> None:
    served = serve()
    show(browser, served)
    browser.wait_for("2 of 2", "#sums")
    assert browser.text("#model-0") == "large"
    assert "● open" in browser.text("article")
    served.large.then(rate_limited(timedelta(seconds=90)))
    served.ask()
    browser.wait_for("1 of 2", "#sums")
    assert "■ disabled until" in browser.text("article.disabled")
    assert "rate limited" in browser.text("article.disabled")
    assert "large: disabled until" in browser.text("#news")
    assert "Live, " in browser.text("#moment")


def test_what_is_left_of_announced_limits_is_shown(serve: Serve, browser: Browser) -> None:
    served = serve()
    announced = {
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "1500",
        "x-ratelimit-reset-tokens": "60s",
    }
    answer = {"choices": [{"message": {"content": "pong"}, "finish_reason": "stop"}]}
    served.large.default = StatusAnswer(200, answer, announced)
    served.ask()
    show(browser, served)
    browser.wait_for("1.5K of 5K tokens left, full at", ".limit")
    served.large.default = StatusAnswer(
        200, answer, {**announced, "x-ratelimit-remaining-tokens": "0"}
    )
    served.ask()
    browser.wait_for("◔ spent until", "article.spent")


def test_a_name_is_never_markup(serve: Serve, browser: Browser) -> None:
    alias = "<img src=x onerror=alert(1)>"
    served = serve(alias, "small")
    served.models[alias].then(rate_limited(timedelta(seconds=90)))
    served.ask()
    show(browser, served)
    browser.wait_for("1 of 2", "#sums")
    assert browser.text("#model-0") == alias
    browser.wait_for(f"{alias} → small", "#calls")
    assert browser.all("img") == []


def test_a_pool_that_is_switched_off_is_shown_as_such(
    serve: Serve, browser: Browser
) -> None:
    show(browser, serve(section={"enabled": False}))
    browser.wait_for("(switched off)", "#mode")


def test_the_first_paint_takes_less_than_a_second(serve: Serve, browser: Browser) -> None:
    show(browser, serve())
    browser.wait_for("2 of 2", "#sums")
    paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert browser.run(paint) < 1000


def test_the_token_is_asked_for_if_the_address_lacks_it(
    serve: Serve, browser: Browser
) -> None:
    served = serve()
    browser.open(f"{served.gateway.url}/page")
    browser.wait(lambda: browser.find("#token").is_displayed())
    browser.find("#token").send_keys(TOKEN)
    browser.find("#ask-token button").click()
    browser.wait_for("2 of 2", "#sums")


def test_a_server_that_does_not_know_the_token_is_not_sent_it(
    serve: Serve, browser: Browser
) -> None:
    show(browser, serve(), "another-token")
    browser.wait_for("This is not the token of the server.")
    sent = browser.sent()
    assert "/proof?nonce=" in sent
    assert "Bearer" not in sent


def test_a_server_that_ends_is_reported(serve: Serve, browser: Browser) -> None:
    served = serve()
    show(browser, served)
    browser.wait_for("2 of 2", "#sums")
    served.gateway.stop()
    browser.wait_for("The server does not answer.", "#notices")
    assert browser.text("#moment") == "Not live"
    # A browser itself reports that it cannot connect.
    assert all("ERR_CONNECTION" in line for line in browser.complaints())


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", NARROW), ("dark", WIDE)],
    ids=["light and narrow", "dark and wide"],
)
def test_axe_finds_nothing_serious(
    serve: Serve, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    served = serve()
    served.large.then(rate_limited(timedelta(seconds=90)))
    served.ask()
    browser.scheme(scheme)
    browser.driver.set_window_size(*size)
    show(browser, served)
    browser.wait_for("1 of 2", "#sums")
    assert browser.findings() == []
    assert browser.run("return document.body.scrollWidth <= innerWidth")
