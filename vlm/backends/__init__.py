"""Language models behind one interface: Hugging Face, SAGE, served, scripted."""
