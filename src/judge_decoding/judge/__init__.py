"""The judge: a linear head on the target's hidden states, its training and its calibration."""
