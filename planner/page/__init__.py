"""The page that shows sweeps, as a file or live with a solver behind it. Imports no torch."""

from __future__ import annotations
