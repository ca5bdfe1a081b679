"""The command `polypod`."""
