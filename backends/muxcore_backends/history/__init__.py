"""Rewrite a conversation for a model that did not hold it: one concern a module.

`forms` brings what other APIs write otherwise into the form of chat completions, `pairs` gives every
call its result and every result its call, `calls` repairs names and arguments, `ids` makes ids that
the server accepts, `contents` and `reasoning` change what a message may hold, `roles` the order of
the messages, and `members` removes members that the server does not know.

Each offers steps: pure functions from a history to a history. A step returns the same
object if there is nothing to change, and changes no message in place.
"""
