"""Records that manifests and plans of splits are made of."""
