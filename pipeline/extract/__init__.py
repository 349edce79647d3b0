"""Image links out of pages: from their HTML, or from Common Crawl's metadata of them (WAT)."""
