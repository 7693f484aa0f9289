"""What processes learn from each other about places. Pure: facts, folding them, making them."""
