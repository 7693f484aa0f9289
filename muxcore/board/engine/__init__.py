"""The board of many machines: a Redis, its scripts and addresses, and what may be wrong with it."""
