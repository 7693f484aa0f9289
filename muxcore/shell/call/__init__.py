"""One call through the pool: the public `Multiplexer`, its attempts and its streams."""
