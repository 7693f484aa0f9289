"""The modes of the multiplexer, one module each, registered as anybody else's are."""
