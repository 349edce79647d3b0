"""A guest's HTTP client, of use to every room that asks the web for something.

`guard` says which URLs and addresses may be asked at all, `robots` (`rules`, `optouts`) what
a host allows, `rates`, `places` and `breaker` when a host may be asked next; `client` makes one
request, bounded in time, bytes and headers.
"""
