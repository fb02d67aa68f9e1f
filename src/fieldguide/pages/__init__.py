"""What pages and Markdown are written with."""
