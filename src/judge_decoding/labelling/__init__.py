"""How labelled answers are made: collected, labelled, annotated, exchanged."""
