"""Simulated worlds of several processes: real pools and links over a made-up board."""
