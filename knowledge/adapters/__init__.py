"""llama-index interfaces of the fact store and the sentence encoder."""
