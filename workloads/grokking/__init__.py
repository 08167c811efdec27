"""Networks that memorise small algorithmic tasks long before they generalise."""
