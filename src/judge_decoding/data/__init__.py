"""Labelled answers: cases, spans, verdicts, and sets of them."""
