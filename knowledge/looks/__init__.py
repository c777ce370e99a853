"""What a pack was shown: pictures of good parts and of named defects, and the names that a new region may bear."""
