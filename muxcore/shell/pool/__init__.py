"""The state that threads share, its lock, and the calls that wait for a slot."""
