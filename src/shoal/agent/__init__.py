"""The node agent: one per node, keeps that node in the Ray cluster."""
