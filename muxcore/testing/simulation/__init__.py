"""Whole worlds made of one seed: pools, modes, faults, clocks and the order of threads.

`worlds` makes one of a seed, `running` lets it happen, `rules` looks on after every step, and
`shrinking` finds the smallest one that still goes wrong. `members` compares a pool with each
of its models alone, and `sessions` whole sessions of vibe with and without the pool.
"""
