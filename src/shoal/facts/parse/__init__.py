"""From a snapshot to facts: pure functions that never raise. What is missing, torn or of an unknown form is None."""
