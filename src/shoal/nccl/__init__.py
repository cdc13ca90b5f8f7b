"""What NCCL is: its variables by version."""
