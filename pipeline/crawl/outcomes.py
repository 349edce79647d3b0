"""What can become of a URL that a crawl meets: beside the outcomes of `wit.outcomes`, these."""

from wit.outcomes import OUTCOMES as OF_REQUESTS

FETCHED = "fetched"
REDIRECT = "redirect"
DUPLICATE = "duplicate"
NOT_HTML = "not_html"
OPTED_OUT = "opted_out"
NOFOLLOW = "nofollow"
OFF_SITE = "off_site"
OVER_DEPTH = "over_depth"
OVER_HOST_PAGES = "over_host_pages"
OVER_PAGES = "over_pages"
OVER_BYTES = "over_bytes"
WAITING = "waiting"

CRAWL_OUTCOMES: dict[str, str] = {
    FETCHED: "The page was fetched and stands in a WARC file.",
    REDIRECT: "The answer leads to another URL, which is a row of its own.",
    DUPLICATE: "The page names a canonical URL that the crawl knew already, so it was not kept; "
    "or the URL is the canonical one of a page that was kept under another.",
    NOT_HTML: "The answer is no HTML page.",
    OPTED_OUT: "The page opts out, by X-Robots-Tag, <meta name=robots> or TDM-Reservation: noai, "
    "noimageai, noindex, noimageindex or none. It was not kept.",
    NOFOLLOW: "Only links with rel=nofollow, or of pages that say nofollow, lead there.",
    OFF_SITE: "Outside of what was to be crawled.",
    OVER_DEPTH: "Farther from the seeds than --max-depth.",
    OVER_HOST_PAGES: "Not asked: its host's --max-host-pages were reached.",
    OVER_PAGES: "Not asked: --max-pages were reached.",
    OVER_BYTES: "Not asked, or not kept: --max-bytes were reached.",
    WAITING: "Not asked yet: the crawl was stopped before its end.",
}
# Fetched has no namesake there, and `opted_out` means the same; the rest are failures' names.
ALL: dict[str, str] = {
    **{name: text for name, (_, text) in OF_REQUESTS.items() if name != "success"},
    **CRAWL_OUTCOMES,
}
CODES = {name: code for code, name in enumerate(ALL)}
NAMES = tuple(ALL)
