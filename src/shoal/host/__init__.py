"""The only way to touch a machine."""
