"""Things read: a command or path, a pure parser, a frozen value."""
