"""How modes and backends come in: two hooks, one catalogue, and the Backend protocol."""
