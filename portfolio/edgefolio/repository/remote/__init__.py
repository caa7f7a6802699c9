"""Storage over a network: web servers and S3-compatible stores."""
