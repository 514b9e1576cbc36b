"""From labelled answers to a head."""
