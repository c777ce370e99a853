"""The MLE judges: local and behind an API, with the parts of the local one."""
