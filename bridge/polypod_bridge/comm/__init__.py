"""The comm protocol between a language runtime and its supervisor: bytes and messages, no I/O."""
