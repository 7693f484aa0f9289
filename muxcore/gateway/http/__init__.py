"""The loopback HTTP server under the gateway. It knows no dialect and no pool."""
