"""Labelled answers: collecting, labelling, annotating and exchanging them."""
