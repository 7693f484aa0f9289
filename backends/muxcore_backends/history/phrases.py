"""The texts that rewriting inserts into a conversation.

They never change from one call to the next, so prompt caches keep hitting.
"""

INTERRUPTED = "(No result: the call was interrupted.)"
"""Stands for the result that a call never got."""

NOTED = "OK."
"""An answer between a tool's result and the user, where a server demands one."""

GO_ON = "Go on."
"""The user's turn after an answer that broke off, where a server demands one."""

EARLIER = "(The beginning of this conversation is not shown.)"
"""The user's turn before a conversation that begins with an answer."""

NO_IMAGE = "(An image that this model cannot see.)"
"""Stands for an image in front of a model without eyes."""

UNNAMED = "unnamed"
"""A tool whose name is lost."""

BLANK = " "
"""Reasoning that is not there, for servers that demand some; Kimi refuses an empty text."""

SEAM = "\n\n"
"""Between two messages that were made one."""
