"""What to do: decisions, queues, routing, and what is known. Pure."""
