"""The decoding loop: token ids in, `Round` events out."""
