"""Code that all stages share: errors, files, params, running a stage, reading the store."""
