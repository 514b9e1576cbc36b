"""Serving recipes (a pair of models, a judge and GPUs), their memory and speed estimates, and per-request rules."""
