"""Here so that tests share builders by their folder: `from records.synthetic_runs import …`.

And so that they read alike whatever the caller's environment says.
"""

import os

os.environ["COLUMNS"] = "80"  # else a narrow terminal folds what tests look for
for name in ("BENCH_RESULTS", "RAY_ADDRESS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)
