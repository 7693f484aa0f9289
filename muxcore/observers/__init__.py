"""The observers of this package: the calls that have ended, and metrics."""
