"""Pure rules: what a ticket may become, who may do what, what a text may hold. Standard library only."""
