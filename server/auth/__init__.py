"""From a token to a caller: the only identity that the service believes (contract, section 1)."""
