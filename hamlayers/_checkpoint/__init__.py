"""Trees of arrays in files: safe to read, self-describing, whole or absent."""

from ._file import (
    FORMAT as FORMAT,
    CheckpointError as CheckpointError,
    Contents as Contents,
    below as below,
    current_versions as current_versions,
    describe as describe,
    load as load,
    read as read,
    restore as restore,
    save as save,
)
