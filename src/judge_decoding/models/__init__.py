"""A causal language model, whatever is wrapped around it."""
