"""Search for plans of a split over a link: what layers cost when they are divided, and which plans are worth making."""
