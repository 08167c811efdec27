"""Graph isomorphism networks: molecules sorted by what they do."""
