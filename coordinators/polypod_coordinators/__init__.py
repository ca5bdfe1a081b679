"""Coordinators: which artifact holds a task, and the command that runs it."""
