"""The imperative shell: the lock, the clock, and the HTTP calls. No decision is made here."""
