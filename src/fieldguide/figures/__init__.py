"""Figures of the photos, the network and its mistakes."""
