"""Networks that learn several skills from one mixture of data."""
