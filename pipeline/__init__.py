"""The harvest: from crawl files to balanced shards."""
