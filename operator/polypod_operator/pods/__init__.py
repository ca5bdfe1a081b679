"""The pod of an attempt: built, merged with templates, and checked. Pure."""
