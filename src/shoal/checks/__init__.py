"""Facts judged: findings with evidence and fix."""
