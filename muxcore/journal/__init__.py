"""The journal of a process: what happened to its pool, as entries and as bytes."""
