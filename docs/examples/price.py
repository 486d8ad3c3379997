"""What training costs with a validation file, or with no row held out, before anything runs:
python docs/examples/price.py BASE_FOLDER TRAIN.jsonl"""

import sys
from pathlib import Path

from db.contract.presets import resolve
from db.contract.pricing import Counts, price
from db.contract.rows.files import check, parse
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import open_base
from db.contract.tokens.encoding import encode_rows


def main(folder: str, train: str) -> None:
    base, data = open_base("mine", folder), Path(train).read_bytes()
    report = check([data])  # raises BadRow with the line of a row that is not right
    encoded = list(encode_rows(base, parse([data])))
    counts = Counts([row.tokens for row in encoded], [row.prompt for row in encoded])
    for method in ("mezo", "lozo"):
        values = resolve({"method": method, "steps": 100, "held_out": 0}, base, report.format, report.rows)
        spec = JobSpec(model="mine", training_file="file-mine", seed=0, **values)
        cost = price(spec, counts, Counts())
        step = f"{spec.method.probes} probes on {spec.batch_size} rows"
        print(f"{method}: {spec.steps} steps of {step}: {cost.total} scored tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
