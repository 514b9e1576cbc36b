"""Implementations of the commands, called with checked options. Importing them loads torch and transformers."""
