"""Recipes: a pair of models, a judge and the GPUs that serve them; what fits there, and how fast."""
