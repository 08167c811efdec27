"""Here so that tests share builders by their folder: `from records.synthetic_runs import …`."""
