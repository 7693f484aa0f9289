from __future__ import annotations

from typing import Any

import pytest

from muxcore.gateway.api.skill import ALREADY_LOADED, asks_for_status
from muxcore.gateway.skill_file import BODY, MARKER, TEXT

VIBE_3 = (
    f'/mux\n\n<skill_content name="mux">\n# Skill: mux\n\n{BODY.strip()}\n\nBase directory for'
    " this skill: /tmp/x\nNote: file list is sampled.\n\n<skill_files>\n\n</skill_files>\n"
    "</skill_content>"
)


@pytest.mark.parametrize(
    "content",
    [
        "/mux",
        "  /mux\n",
        VIBE_3,
        VIBE_3.replace("/mux\n", "/mux please\n", 1),
        VIBE_3.removeprefix("/mux\n\n"),
        TEXT,
        f"/mux now\n\n{TEXT}",
        BODY,
        f"/mux\n\n{ALREADY_LOADED} Reuse those instructions.",
        [{"type": "text", "text": "/mux"}],
        [{"type": "text", "text": "/mux"}, {"type": "text", "text": VIBE_3[6:]}],
    ],
)
def test_the_command_is_recognised(content: object) -> None:
    assert asks_for_status([{"role": "user", "content": content}])
    earlier = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert asks_for_status([*earlier, {"role": "user", "content": content}])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": "what is /mux"}],
        [{"role": "user", "content": "/mux and then fix the tests"}],
        [{"role": "user", "content": "/muxer"}],
        [{"role": "user", "content": f"/muxer {BODY}"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        [{"role": "user"}],
        [{"role": "assistant", "content": "/mux"}],
        [{"role": "tool", "content": "/mux"}],
        [{"role": "user", "content": "/mux"}, {"role": "assistant", "content": "ok"}],
        # Vibe's request for a title, and one for a new title.
        [
            {"role": "system", "content": "Name it."},
            {"role": "user", "content": f"user: {VIBE_3}\n\nassistant: all is well"},
        ],
        [{"role": "user", "content": f"Current title: x\n\nTranscript:\nuser: {VIBE_3}"}],
        [{"role": "user", "content": f"explain this file:\n{TEXT}"}],
        [{"role": "user", "content": "---\nname: other\n---\n"}],
    ],
)
def test_other_messages_go_to_a_model(messages: list[dict[str, Any]]) -> None:
    assert not asks_for_status(messages)


def test_the_file_is_a_skill_for_the_user_alone() -> None:
    _, matter, body = TEXT.split("---\n", 2)
    assert "name: mux\n" in matter
    assert "user-invocable: true\n" in matter
    assert "disable-model-invocation: true\n" in matter
    assert MARKER in body
    assert "vibe-mux run -- vibe" in body
