"""What the service does, one function per act; the API and the background roles share them."""
