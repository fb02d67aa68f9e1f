"""Remote storage, looked at itself and not through DVC's memory of it."""
