"""`SKILL.md`, the file that makes `/mux` a command of vibe."""

NAME = "mux"
COMMAND = f"/{NAME}"
FILE = f"{NAME}/SKILL.md"
"""Its path under a directory of `VIBE_SKILL_PATHS`."""

MARKER = "vibe-mux:status:7f1c2f6e"
"""Unique to this skill: no user types it by chance."""

BODY = f"""\
<!-- {MARKER} -->
The user asks for the status of the multiplexer. When vibe runs through vibe-mux, this message
is answered before it reaches a model. If you read it, vibe does not run through vibe-mux: say
so in one sentence, and that `vibe-mux run -- vibe` starts vibe through the pool of models.
Call no tool.
"""

TEXT = f"""\
---
name: {NAME}
description: Show the status of the multiplexer (vibe-mux) without calling a model.
user-invocable: true
disable-model-invocation: true
---

{BODY}"""
"""The whole of `SKILL.md`."""
