"""Measured evidence: what the fabric carries between the ranks of a cluster."""
