"""The kopf operator: watches portfolios, nodes and endpoints and decides which variant each endpoint serves."""
