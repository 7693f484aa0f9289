"""The API of the gateway: chat completions, models, status, receipts."""
