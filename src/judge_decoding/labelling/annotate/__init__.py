"""Labelling by hand: a local web page on which a person marks where answers go wrong."""
