"""Low-rank matrices found from measurements of them."""
