"""Ways of decoding side by side: tokens per second, where a round's time goes, and how near that is to the limit."""
