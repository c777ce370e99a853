"""HTML and reports made from traces, and the progress of a running inspection."""
