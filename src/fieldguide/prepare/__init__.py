"""Photos to store: archives, layout, decoding, copies and splits."""
