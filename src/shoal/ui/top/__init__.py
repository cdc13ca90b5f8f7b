"""The terminal view: the same document as the status page's, in a terminal."""
