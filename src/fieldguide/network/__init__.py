"""The network, the classifier bundle that holds it, and the batches that it takes."""
