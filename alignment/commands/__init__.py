"""The sub-commands of `sage-train`."""
