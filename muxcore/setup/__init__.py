"""Setting a user's own files up, and undoing it: what `vibe-mux init` does."""

from muxcore.errors import MultiplexerError


class SetupError(MultiplexerError):
    """The setup cannot be done, or undone, as it is asked for."""
