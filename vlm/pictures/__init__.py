"""Readers of picture files, one a file; `sage_ad.vlm.images` is the door to them."""
