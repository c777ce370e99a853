"""Packs on disk, the fact store over them, retrieval and exchange."""
