"""The events of a lease, a line each.

A client that has read `began` without `ended` when the connection breaks knows that this call
was lost with the server.
"""

HELD, BEGAN, ENDED, DRAINING, RELEASED = (
    b"held",
    b"began",
    b"ended",
    b"draining",
    b"released",
)
