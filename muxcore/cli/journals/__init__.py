"""The subcommands that read journals: why, replay, whatif."""
