"""What the server answers to a browser: files without a token, facts with it alone."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import pytest

from muxcore.gateway.page.files import PAGE_FILES
from tests.gateway.conftest import Served
from tests.gateway.page.canaries import KEY, PROMPT, with_key

Serve = Callable[..., Served]


@pytest.mark.parametrize("path", PAGE_FILES)
def test_a_file_needs_no_token_and_loads_nothing_from_elsewhere(
    serve: Serve, path: str
) -> None:
    served = serve()
    answer = served.get(path, headers={"Authorization": ""})
    assert answer.status_code == HTTPStatus.OK
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in str(policy)
    allowed = {"'none'", "'self'", "'script'"}
    assert all(set(directive.split()[1:]) <= allowed for directive in policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_facts_need_the_token(serve: Serve) -> None:
    answer = serve().get("/page/pool", headers={"Authorization": ""})
    assert answer.status_code == HTTPStatus.UNAUTHORIZED


def test_what_is_not_there_is_not_found(serve: Serve) -> None:
    answer = serve().get("/page/secret.js")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["error"]["code"] == "not_found"


def test_only_the_page_itself_may_load_its_scripts(serve: Serve) -> None:
    served = serve()
    own = {"Origin": served.gateway.url}
    other = {"Origin": "http://127.0.0.1:1"}
    assert served.get("/page/main.js", headers=own).status_code == HTTPStatus.OK
    assert served.get("/page/main.js", headers=other).status_code == HTTPStatus.FORBIDDEN
    assert served.get("/page/pool", headers=own).status_code == HTTPStatus.FORBIDDEN


def test_the_pool_is_as_the_status_has_it_with_each_standing(serve: Serve) -> None:
    served = serve()
    served.ask()
    pool = served.get("/page/pool").json()
    status = served.get("/status?format=json").json()
    assert [model["alias"] for model in pool["models"]] == ["large", "small"]
    for model in pool["models"]:
        assert model["standing"] == "open"
        assert status["per_model"][model["alias"]].items() <= model.items()


def test_no_key_and_no_prompt_is_in_it(serve: Serve) -> None:
    served = serve(source=with_key, env={"CANARY_KEY": KEY})
    served.ask(messages=[{"role": "user", "content": PROMPT}])
    found = served.get("/page/pool").text
    assert '"success_count": 1' in found
    assert KEY not in found
    assert PROMPT not in found
