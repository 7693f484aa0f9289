"""Modes and backends as plugins: two hooks, one catalogue, and the `Backend` protocol."""
