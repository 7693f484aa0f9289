"""Starting an agent on the gateway: a server for as long as it runs, and its process."""
