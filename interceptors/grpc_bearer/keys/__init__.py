"""Keys of issuers: what they are, how long they are good for, and where they come from."""
