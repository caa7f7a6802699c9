"""What the exactness tests and the exactness benchmark share: nets, damage done to them, and an independent oracle."""
