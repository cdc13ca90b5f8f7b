"""Many nodes from one chair: plan, up, rollback and down over ssh."""
