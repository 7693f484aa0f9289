"""HTTP under a call: requests, connections, server-sent events, cancellation."""
