"""A browser for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.page.browser import (
    CHROMIUM,
    DRIVER,
    NO_BROWSER,
    WIDE,
    Browser,
    running_browser,
)


@pytest.fixture(scope="session")
def _one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(NO_BROWSER)
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(_one_browser: Browser) -> Iterator[Browser]:
    """A wide window, which must not have complained when the test ends."""
    browser = _one_browser
    browser.driver.set_window_size(*WIDE)
    browser.scheme("light")
    browser.complaints(), browser.sent()
    yield browser
    complaints = browser.complaints()
    browser.driver.get("about:blank")
    assert complaints == []
