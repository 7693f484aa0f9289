"""The fire drill: faults that users put into their own pool, and how they are injected."""
