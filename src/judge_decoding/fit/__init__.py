"""From a target and prompts to a head."""
