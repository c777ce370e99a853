"""Sees and speaks: images to patch features, test/reference comparison and evidence map, and the language models behind one interface."""
