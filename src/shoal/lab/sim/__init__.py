"""The simulated engine: vLLM's process shape and faces without a model. It never says that it is vLLM."""
