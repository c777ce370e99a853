"""Model weights that come as Python packages, and GGUF files."""
