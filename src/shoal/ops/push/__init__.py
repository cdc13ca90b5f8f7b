"""Models and images brought to every host: once to the first, then from node to node."""
