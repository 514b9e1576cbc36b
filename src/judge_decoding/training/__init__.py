"""From prompts to a judge head: the steps of `fit_head`."""
