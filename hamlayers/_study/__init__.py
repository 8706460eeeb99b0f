"""The study of learned activations: what `hamlayers study` computes."""
