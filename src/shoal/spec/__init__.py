"""What the user wrote: environment, registry and folders, as typed values."""
