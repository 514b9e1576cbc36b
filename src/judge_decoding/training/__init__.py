"""Training a judge head from labelled answers."""
