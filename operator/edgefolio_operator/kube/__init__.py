"""The API server: client, informers and caches, leader election, events, server-side apply in bulk."""
