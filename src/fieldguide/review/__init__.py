"""`fieldguide review`: decide the classes of doubtful photos in a local page."""
