"""Answers that no server should give; some do."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from muxcore.plugins.backend import HttpResponse

STATUSES = (200, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 599)
BODIES = (
    b"",
    b"{",
    b"null",
    b"7",
    b'"text"',
    b"[]",
    b"[[{}]]",
    b"{}",
    b'{"error": null}',
    b'{"error": [7]}',
    b'{"error": {"message": 7, "code": {}}}',
    b'{"choices": {"0": 7}}',
    b"<html>\xff",
    b"\x00\x1b[31m\r\n",
)
ANSWERS = st.builds(
    HttpResponse,
    st.sampled_from(STATUSES),
    st.dictionaries(
        st.sampled_from(("retry-after", "retry-after-ms", "content-type", "x-odd")),
        st.sampled_from(
            ("", "3", "-1", "1e999", "nan", "Thu, 01 Jan 2026 00:00:09 GMT", "ÿ")
        ),
        max_size=2,
    ),
    st.binary(max_size=20)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("error", "message", "code", "choices", "delta", "detail")),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
