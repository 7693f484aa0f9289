"""What the gateway answers: chat completions, models, status, receipts."""
