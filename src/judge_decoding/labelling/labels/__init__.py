"""Automatic labelling of answers; one file per method."""
