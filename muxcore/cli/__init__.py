"""The `vibe-mux` command: one module a subcommand, each imported only when it is used."""
