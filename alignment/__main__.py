"""Lets launchers start the trainers: `accelerate launch -m sage_ad.alignment edpo ...`, `python -m sage_ad.alignment ...`."""

from sage_ad.alignment.cli import main

if __name__ == "__main__":
    main()
