"""Sentence vectors: encoder, cache and the FAISS index."""
