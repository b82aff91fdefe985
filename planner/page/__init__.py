"""Plans made visible: what a page shows of a profile and its plans, and the page itself. Imports no torch."""

from __future__ import annotations
