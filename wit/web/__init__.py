"""A guest's HTTP client, of use to every room that asks the web for something.

`guard` says which URLs and addresses may be asked at all, `robots` what a host allows, `rates`
when a host may be asked next; `client` makes one request, bounded in time, bytes and headers.
"""
