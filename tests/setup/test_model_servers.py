"""What a list of models says of one of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxcore.setup.model_servers import ServedModel, served_model

LLAMA: Any = {
    "object": "list",
    "data": [{"id": "/models/small.gguf", "aliases": ["small"], "meta": {"n_ctx": 1024}}],
}


@pytest.mark.parametrize(
    ("listed", "model", "window"),
    [
        (LLAMA, "/models/small.gguf", 1024),
        (LLAMA, "small", 1024),
        (LLAMA, "whatever vibe calls it", 1024),
        ({"data": [{"id": "a", "max_model_len": 8192}, {"id": "b"}]}, "a", 8192),
        ({"data": [{"id": "a", "max_model_len": 8192}, {"id": "b"}]}, "b", None),
        ({"data": [{"id": "a", "max_model_len": 8192}, {"id": "b"}]}, "c", None),
        ({"data": [{"id": "a", "context_length": 4096}]}, "a", 4096),
        ({"data": [{"id": "a", "meta": None}]}, "a", None),
        ({"data": [{"id": "a", "meta": {"n_ctx": 0}, "max_model_len": "9"}]}, "a", None),
        ({"data": [{"id": "a", "meta": {"n_ctx": True}}]}, "a", None),
        ({"data": [{"id": "a", "meta": {"n_ctx": 10**40}}]}, "a", None),
        ({"data": "none"}, "a", None),
        ([], "a", None),
        (None, "a", None),
    ],
)
def test_the_window_is_read_where_servers_write_it(
    listed: object, model: str, window: int | None
) -> None:
    assert served_model(listed, model).context_window == window


@pytest.mark.parametrize(
    ("entry", "takes"),
    [
        ({"architecture": {"input_modalities": ["text", "image"]}}, True),
        ({"architecture": {"input_modalities": ["text"]}}, False),
        ({"input_modalities": ["image"]}, True),
        ({"capabilities": ["completion", "multimodal"]}, True),
        ({"capabilities": ["completion"]}, False),
        ({"capabilities": {"vision": True}}, None),
        ({"architecture": "llama", "capabilities": []}, None),
        ({}, None),
    ],
)
def test_whether_a_model_takes_images_is_read_where_servers_write_it(
    entry: dict[str, Any], takes: bool | None
) -> None:
    assert served_model({"data": [{"id": "a", **entry}]}, "a").takes_images is takes


def test_two_lists_of_one_model_complete_each_other() -> None:
    """As llama.cpp has them."""
    listed = {"models": [{"name": "small", "capabilities": ["completion"]}], **LLAMA}
    assert served_model(listed, "small") == ServedModel(1024, takes_images=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "models", "id", "meta", "n_ctx", "aliases", "capabilities"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_list_is_read_without_an_error(listed: object) -> None:
    window = served_model(listed, "a").context_window
    assert window is None or window > 0
