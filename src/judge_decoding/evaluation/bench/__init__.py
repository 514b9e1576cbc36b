"""Benchmark decoding methods side by side: tokens per second, accepted draft tokens, and differing outputs."""
