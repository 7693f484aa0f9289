"""The text of a TOML file: where its values stand, and why it cannot be read."""
