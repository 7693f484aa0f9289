"""What processes tell each other of places: the boards, and the thread which does their I/O."""
