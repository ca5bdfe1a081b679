"""The runtime process, wherever it runs: a child of ours, or a child of the launcher in another container."""
