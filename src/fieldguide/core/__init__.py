"""What all stages use: params, errors, files, the prepared store, running a stage."""
