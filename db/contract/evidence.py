"""What the study measured of each method. `python -m bench.study --presets` writes it from the study's JSON."""

from typing import Final

from db.contract.methods.base import Evidence

__all__ = ["EVIDENCE", "Evidence"]

# The study's best line of each method; of one kind of job the least seconds come first.
EVIDENCE: Final[tuple[Evidence, ...]] = ()
