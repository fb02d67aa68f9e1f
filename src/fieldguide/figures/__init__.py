"""Pictures of data, network and mistakes."""
