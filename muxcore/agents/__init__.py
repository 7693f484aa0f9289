"""Starts an agent on the gateway: a server while the agent runs, and the agent's process."""
