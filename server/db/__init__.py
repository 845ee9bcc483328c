"""Tables, statements and migrations. This room knows rows and knows no RPC."""
