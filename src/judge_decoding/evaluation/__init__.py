"""Measure what judge decoding costs in quality and gains in speed, with confidence intervals."""
