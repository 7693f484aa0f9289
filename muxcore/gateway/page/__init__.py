"""The page of the server for a browser: its files, and what it asks for."""
