"""The service for a line: the engine of the page behind plain HTTP (`sage-serve`)."""
