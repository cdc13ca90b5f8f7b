"""The status page, served by the head's agent: who may see it, what it shows, and the files that a browser gets."""
