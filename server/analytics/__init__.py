"""The Analytics Service: measures support, from the events of its tickets."""
