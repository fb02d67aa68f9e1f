"""Pages and Markdown from templates, in which the text of strangers stays text."""
