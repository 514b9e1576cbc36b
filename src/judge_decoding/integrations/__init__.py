"""Judge decoding inside other people's software."""
