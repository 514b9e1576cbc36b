"""The playground: a local page on which a target alone and judge decoding answer side by side."""
