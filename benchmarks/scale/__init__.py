"""What the operator costs, and how soon an objective reaches all endpoints, with 2, 50 and 500 of them."""
