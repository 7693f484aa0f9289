"""Reading refusals: how far it goes, to the character."""

from __future__ import annotations

import json

import pytest

from muxcore.plugins.backend import HttpResponse
from muxcore_backends.complaints import LONGEST_MESSAGE, Complaint, clean, read
from muxcore_backends.failures import classify


def read_json(value: object) -> Complaint:
    return read(json.dumps(value).encode())


def nested(levels: int) -> object:
    value: object = {"message": "deep"}
    for _ in range(levels):
        value = [value]
    return value


def quoted(levels: int) -> object:
    """One server's complaint as a text in another's, so many times over."""
    value: dict[str, object] = {"message": "deep"}
    for _ in range(levels):
        value = {"message": json.dumps(value)}
    return value


def inside(levels: int) -> object:
    value: object = {"message": "deep"}
    for _ in range(levels):
        value = {"error": value}
    return value


@pytest.mark.parametrize("wrapped", [nested, quoted, inside])
def test_an_error_is_searched_eight_levels_deep(wrapped: object) -> None:
    assert callable(wrapped)
    assert read_json(wrapped(8)).message == "deep"
    assert read_json(wrapped(9)).message != "deep"


def test_eight_items_of_a_list_are_searched() -> None:
    assert read_json([*[0] * 7, "last"]).message == "last"
    assert not read_json([*[0] * 8, "late"]).message


def test_a_text_of_the_longest_size_is_kept_whole() -> None:
    whole = "x" * LONGEST_MESSAGE
    assert clean(whole) == whole
    assert clean("\x07" + whole) == whole
    assert clean(whole + "x") == "x" * (LONGEST_MESSAGE - 1) + "…"


def test_eight_thousand_characters_are_searched_for_something_to_show() -> None:
    assert clean("\x00" * 7996 + "word") == "word"
    assert not clean("\x00" * 8000 + "word")
    assert clean("\x1b[31m" * 1000 + "word") == "word"


def test_a_page_is_searched_for_its_title_further_than_a_message_may_be_long() -> None:
    page = b"<html>" + b" " * 20_000 + b"<title>Gateway\nbusy</title>"
    assert read(page) == Complaint(message="Gateway busy", is_html=True, is_foreign=True)
    assert not read(b"<html>" + b" " * 64_000 + b"<title>late</title>").message


def test_a_byte_order_mark_and_blanks_before_a_page_are_ignored() -> None:
    assert read(b"\xef\xbb\xbf \t\r\n<p>gone</p>").is_html
    assert not read(b"X<p>").is_html
    assert read(b"XX marks").message == "XX marks"


@pytest.mark.parametrize("broken", [b'{"message": "half', b"[1, 2", b' \n["'])
def test_broken_json_is_not_quoted(broken: bytes) -> None:
    assert read(broken) == Complaint()


def test_plain_text_is_no_html_page() -> None:
    assert read(b"upstream gone") == Complaint(message="upstream gone", is_foreign=True)


@pytest.mark.parametrize(
    ("size", "window"),
    [
        (1, 1),
        (8192, 8192),
        (10**9, 10**9),
        (0, None),
        (-1, None),
        (10**9 + 1, None),
        (10**38, None),
        (True, None),
        ("8192", None),
        (8192.0, None),
    ],
)
def test_a_window_is_a_number_of_tokens_within_reason(
    size: object, window: int | None
) -> None:
    """Found by the fuzzer: a server could name any."""
    assert read_json({"error": {"message": "too long", "n_ctx": size}}).window == window


@pytest.mark.parametrize(
    ("named", "status"),
    [(400, 400), (599, 599), ("503", 503), (399, None), (600, None), ("5000", None)],
)
def test_a_status_is_that_of_an_error(named: object, status: int | None) -> None:
    assert read_json({"error": {"message": "no", "code": named}}).status == status


def test_the_place_of_a_fault_is_named_with_eight_steps_at_most() -> None:
    place = ["body", "messages", 0, "content", 1, "type", "a", "b", "c"]
    said = read_json({"detail": [{"loc": place, "msg": "wrong"}]}).message
    assert said == "body.messages.0.content.1.type.a.b: wrong"


def test_the_surest_of_several_statuses_counts() -> None:
    assert read_json({"code": 400, "status_code": 503}).status == 503
    assert read_json({"status": 429, "code": 500}).status == 500


@pytest.mark.parametrize(
    ("number", "window"), [("1,000,000,000", 10**9), ("1,000,000,001", None), ("0", None)]
)
def test_a_window_named_in_a_message_is_within_reason(
    number: str, window: int | None
) -> None:
    text = f"this model's maximum context length is {number} tokens"
    body = json.dumps({"error": {"message": text}}).encode()
    assert classify(HttpResponse(400, {}, body), None).window == window


SAID = (
    "message",
    "msg",
    "error_description",
    "description",
    "error_msg",
    "status_msg",
    "title",
)
NAMED = ("code", "type", "status", "reason", "error_code", "quotaId", "limit_source")
NUMBERED = ("raw_status_code", "status_code", "statusCode", "http_code", "code", "status")
INSIDE = (
    *("error", "errors", "message", "detail", "details", "metadata", "raw"),
    *("violations", "innererror", "inner_error", "base_resp"),
)


@pytest.mark.parametrize("name", SAID)
def test_a_message_is_found_under_all_its_names(name: str) -> None:
    assert read_json({name: "no room"}).message == "no room"


@pytest.mark.parametrize("name", NAMED)
def test_an_error_code_is_found_under_all_its_names(name: str) -> None:
    assert read_json({name: "Some_Name"}).names == {"some_name"}


@pytest.mark.parametrize("name", NUMBERED)
def test_a_status_is_found_under_all_its_names(name: str) -> None:
    assert read_json({name: 503}).status == 503


@pytest.mark.parametrize("name", INSIDE)
def test_nested_errors_are_searched(name: str) -> None:
    assert read_json({name: {"msg": "no room"}}).message == "no room"


def test_rules_read_words_and_names_in_lower_case_a_line_for_each() -> None:
    complaint = read_json({"message": "No Room", "type": "Late", "code": "Early"})
    assert complaint.text == "no room\nearly\nlate"


def test_texts_are_cut_at_their_longest_length() -> None:
    assert len(clean("x" * 500)) == 300
    (name,) = read_json({"code": "x" * 500}).names
    assert len(name) == 100
    assert len(read_json({"message": "x" * 5000}).message) == 4000
    assert len(read(b"x" * 5000).message) == 4000
