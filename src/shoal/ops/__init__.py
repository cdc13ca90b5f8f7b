"""Work done from the operator's chair: up, down, status, ask."""
