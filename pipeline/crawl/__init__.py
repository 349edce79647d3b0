"""`wit crawl`: a small, polite, breadth-first crawler whose WARC files `wit harvest` reads."""
