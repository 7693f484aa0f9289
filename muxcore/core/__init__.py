"""The functional core: pure functions over immutable records.

Nothing here reads a clock, rolls dice, locks, sleeps or does I/O; `import-linter` and
ruff's `banned-api` hold it to that. Open `selection` for how an endpoint is chosen,
`updating` for what is learnt, and `protocol` for the steps of one whole call.
"""
