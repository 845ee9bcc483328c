"""The gRPC surface: servicers, the wrapper around every call, proto to domain and back."""
