"""The supervisor: a pure state machine and outcome table, and the thin shell that drives them."""
