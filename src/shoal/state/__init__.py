"""What is known of the cluster, and what is remembered of it."""
