"""One module per verb: parse, call, report, exit code."""
