"""Networks, and the saved classifier bundle."""
