"""Implementations of the commands, called with checked options. Importing them loads torch and transformers.

That takes seconds in which there is nothing else to show, so it is shown.
"""

from judge_decoding.cli.console import Terminal

with Terminal(err=True).status("loading torch and transformers"):
    import transformers.modeling_utils  # noqa: F401  (and with it torch)
