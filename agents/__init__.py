"""Acts: the Self-Guided Fact Enhancement agent as a LangGraph graph, and the command that inspects one part with it."""
