"""The front doors of the gateway: one module for each API that clients speak, all of them pure."""
