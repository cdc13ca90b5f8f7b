"""The engine supervisor: one per cluster, keeps the vLLM server producing tokens."""
