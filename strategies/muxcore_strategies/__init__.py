"""The modes of the multiplexer, one module each, registered by the same hook as third-party modes."""
