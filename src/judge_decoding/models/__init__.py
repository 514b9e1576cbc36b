"""A causal language model and its tokenizer: forward passes, KV cache, token ids, texts and prompts."""
