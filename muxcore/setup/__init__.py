"""Setting a user's own files up, and undoing it: what `vibe-mux init` does."""
