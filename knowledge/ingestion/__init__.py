"""From documents to checked facts: readers, extraction, classification, the graph."""
