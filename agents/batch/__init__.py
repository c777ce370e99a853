"""Inspects many parts: manifest, engines (this machine or Ray), stored rows."""
