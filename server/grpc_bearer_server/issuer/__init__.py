"""The embedded issuer: mints tokens for development, on loopback, so that everything runs on one machine."""
