"""What each ATen operator does to channels, and how it is written with fewer of them."""
