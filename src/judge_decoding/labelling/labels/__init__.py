"""Labelling answers without a person; a file for each way."""
