"""What another config would have made of a journal's calls. Pure: it has a clock of its own."""
