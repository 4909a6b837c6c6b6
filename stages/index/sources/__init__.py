"""Where images come from: folders, CSV files, text lists, SF-XL names, other manifests."""
