"""The studies that `hamlayers study` runs."""
