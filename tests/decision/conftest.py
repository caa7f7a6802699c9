"""The helpers beside this file on the import path; hypothesis without a deadline, as machines are busy."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("decision", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("decision")
