"""Modes, backends, boards and observers as plugins: hooks, a catalogue, and protocols."""
