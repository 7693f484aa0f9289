"""What a conversation needs before another model takes it over, one concern a module.

`pairs` sees to it that every call has its result and every result its call, `calls` that a
call can be read, `ids` that ids are what the next server takes, `contents` and `reasoning`
that a message holds only what it may, `roles` that messages stand in an order that is
accepted, and `members` that none has a member that the server does not know.

Each offers steps: pure functions from a history to a history. A step gives back the very
history that it got if there is nothing to do, and changes no message in place.
"""
