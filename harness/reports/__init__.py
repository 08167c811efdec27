"""Reports: what was measured as one page, as tables, and as figures."""
