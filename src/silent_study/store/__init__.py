"""The folder of results: files, locks, runs, packs, manifests."""
