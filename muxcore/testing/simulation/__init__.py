"""Worlds made from one seed: a pool, a mode, faults, clocks and the order of threads.

`worlds` makes a world from a seed, `world_run` runs it, `rules` checks it after every step, and
`shrinking` finds the smallest one that breaks the same rule. `comparison` compares a pool with
each of its models alone, and `sessions` whole sessions of vibe with and without the pool.
"""
