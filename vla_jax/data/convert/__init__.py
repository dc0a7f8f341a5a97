"""Converters from the data sets that users have to RLDS."""
