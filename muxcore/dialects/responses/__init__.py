"""OpenAI's Responses API: items from messages and back, settings, usage. Pure."""
