"""Models, tokenizers and adapters by name or folder."""
