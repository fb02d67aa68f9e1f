"""Rebuild a revision elsewhere and compare its bytes with those that were committed."""
