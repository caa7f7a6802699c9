"""Linear maps of a captured graph and what calibration samples say of them, for every route that re-fits weights."""
