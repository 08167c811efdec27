"""Official data files in tests: only where somebody has them, and says so by BENCH_DATA_DIR."""

import os

import pytest

from harness import catalogue, data_files


def needs_files(workload: str) -> pytest.MarkDecorator:
    """Skip unless BENCH_DATA_DIR is set and has the workload's files."""
    return pytest.mark.skipif(
        not has_files(workload),
        reason=f"needs the files of {workload}: set BENCH_DATA_DIR to a folder that has them",
    )


def has_files(workload: str) -> bool:
    files = catalogue.workload(workload).card.data.files
    return bool(os.environ.get(data_files.FOLDER_VARIABLE)) and not any(
        data_files.state(file) == "missing" for file in files
    )
