"""Knows: facts with their provenance, sentence embedding, the FAISS fact store behind llama-index, retrieval, ingestion of documents and the domain packs."""
