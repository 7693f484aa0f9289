"""Anthropic's Messages API: blocks from messages and back, settings, usage. Pure."""
