"""The task's log: one stream of everything the runtime and its supervisor say, masked and rendered."""
