"""The parts of `update`: how one kind of entry changes what is known. Pure."""
