"""What the page stands on: the engine, its queue, runs, uploads, documents."""
