"""Lets launchers start the trainers: `accelerate launch -m alignment edpo ...`, `python -m alignment ...`."""

from alignment.cli import main

if __name__ == "__main__":
    main()
