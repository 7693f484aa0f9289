"""What a journal explains: the story of each call, and every decision made again. Pure."""
