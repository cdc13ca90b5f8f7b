"""shoal on two real GPUs, as two nodes: one script, its steps, and what they need."""
