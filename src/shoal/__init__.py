"""shoal: many GPU nodes, one endpoint."""

__version__ = "0.1.0"
