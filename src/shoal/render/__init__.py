"""Plans turned into files: pure, text in, text out."""
