"""The ground floor: what every package shares. Standard library and msgspec; it imports none of the others."""
