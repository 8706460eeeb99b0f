"""The command line: an application of the library, which knows nothing of it."""
