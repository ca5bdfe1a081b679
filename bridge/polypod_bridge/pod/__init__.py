"""The attempt in a pod: its life beside the language container, and where its log is kept."""
