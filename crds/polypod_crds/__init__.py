"""The resources that a user writes, as typed models: the source of the CRD, of its documentation and of every check."""
