"""The Arrow schema of every table that passes between rooms, column by column.

A pair is an image URL and a text found beside it. Its `pair_id` is 128 bits: the 64-bit hash of the
URL, then the 64-bit hash of the text (`wit.hashing`), so equal pairs have equal ids wherever they
are found, and all texts of one image sort together.
"""

import pyarrow as pa

PAIR_ID = pa.binary(16)

QUERIES = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),  # dense: the row number in this list
        pa.field("query_hash", pa.uint64(), nullable=False),  # identity across lists; seeds draws
        pa.field("query", pa.string(), nullable=False),  # normalised (wit.text)
        pa.field("sources", pa.list_(pa.string())),  # where the query comes from, all of them
        pa.field("count", pa.int64()),  # occurrences of a word or bigram in the corpus
        pa.field("pmi", pa.float32()),  # pointwise mutual information of a bigram, in bits
        pa.field("views", pa.int64()),  # page views of a title
    ]
)

LINKS = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),  # WHATWG form, http(s), fragment dropped
        pa.field("text", pa.string(), nullable=False),  # white space collapsed, never empty
        pa.field("page_url", pa.string()),  # the page the image stands on; null in tables
        pa.field("attribute", pa.string()),  # alt, title, data-image-title, figcaption, caption
        pa.field("record_offset", pa.int64()),  # byte of the record in its file; row in tables
    ]
)

CANDIDATES = pa.schema(
    [
        pa.field("pair_id", PAIR_ID, nullable=False),
        *LINKS,
        pa.field("language", pa.string()),  # BCP 47, null where identification was not asked
        pa.field("query_ids", pa.list_(pa.int32()), nullable=False),  # sorted, distinct, not empty
    ]
)

SELECTION = pa.schema(
    [
        *CANDIDATES,
        pa.field("source", pa.int32(), nullable=False),  # index in run.json's sources
        pa.field("row", pa.int32(), nullable=False),  # row in that source's candidates
        pa.field("drawn_by", pa.list_(pa.int32()), nullable=False),  # the queries that drew it
        pa.field("priority", pa.uint64(), nullable=False),  # lowest of its drawing queries'
        pa.field("wave", pa.int8(), nullable=False),  # 1, 2, ...
        pa.field("host", pa.string(), nullable=False),  # scheme and authority: robots.txt's scope
    ]
)

LANE = pa.schema(
    [
        *SELECTION,
        pa.field("preset", pa.string()),  # an outcome that is decided before any request
    ]
)

HOSTS = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),  # scheme and authority
        pa.field("hostname", pa.string(), nullable=False),  # without www.: rates and lanes go by it
        pa.field("pairs", pa.int64(), nullable=False),  # planned, in this wave
        pa.field("lanes", pa.int32(), nullable=False),  # each has 1/lanes of the host's rate
        # allow_all, disallow_all, rules, unreachable, forbidden_address, blocklisted:
        # see wit.web.robots
        pa.field("robots", pa.string()),
        pa.field("rules", pa.string()),  # robots.txt where robots is `rules`
        pa.field("crawl_delay", pa.float64()),  # seconds, where robots.txt asks for one
        pa.field("tdm", pa.string()),  # what tdmrep.json reserves: see wit.web.optouts
    ]
)

EVICTED = pa.schema(  # pictures in the shards that no query draws since a crawl was added
    [
        pa.field("key", pa.string(), nullable=False),  # its first 5 digits: the shard
        pa.field("pair_id", PAIR_ID, nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("query_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("wave", pa.int8(), nullable=False),  # in which it was drawn
    ]
)

COVERAGE = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("matched", pa.int64(), nullable=False),  # candidates whose text includes it
        pa.field("unique", pa.int64(), nullable=False),  # of them, after deduplication
        pa.field("drawn", pa.int64(), nullable=False),  # of its cap, with a picture
        pa.field("present", pa.int64(), nullable=False),  # in the shards, also through others
        pa.field("short_by", pa.int64(), nullable=False),  # min(cap, unique) - drawn
    ]
)

SAMPLES = pa.schema(  # a shard's Parquet: img2dataset's columns, then ours
    [
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),  # the pair's text
        pa.field("key", pa.string()),  # of the sample in the tar: shard and number, 9 digits
        pa.field("status", pa.string()),  # success, failed_to_download, failed_to_resize
        pa.field("error_message", pa.string()),  # null for success
        pa.field("width", pa.int32()),  # pixels, of the stored picture
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),  # pixels, of the fetched picture
        pa.field("original_height", pa.int32()),
        pa.field("exif", pa.string()),  # JSON of camera and exposure, at most 4 KB
        # Of the stored picture, hexadecimal; also of a placeholder, which is not stored.
        pa.field("sha256", pa.string()),
        pa.field("outcome", pa.string()),  # one of wit.outcomes
        pa.field("pair_id", PAIR_ID),
        pa.field("page_url", pa.string()),
        pa.field("attribute", pa.string()),
        pa.field("language", pa.string()),
        pa.field("query_ids", pa.list_(pa.int32())),
        pa.field("priority", pa.uint64()),
        pa.field("wave", pa.int8()),
        pa.field("source", pa.int32()),
        pa.field("row", pa.int32()),
        # Perceptual hash of the upright picture before padding or cropping, as imagehash's `phash`.
        pa.field("phash", pa.uint64()),
        pa.field("animated", pa.bool_()),  # the fetched file has a second frame
        pa.field("content_type", pa.string()),  # what the server said
        pa.field("final_url", pa.string()),  # after redirects
        pa.field("image_ext", pa.string()),  # of the member in the tar
        pa.field("image_offset", pa.int64()),  # bytes into the tar, of the picture itself
        pa.field("image_size", pa.int64()),  # bytes
    ]
)

BLOCKLIST = pa.schema(  # what is not to be in a dataset, 16 bytes an entry: see wit.blocklist
    [
        pa.field("kind", pa.string(), nullable=False),  # url, host, page-host, sha256, pair
        pa.field("value", pa.binary(16), nullable=False),  # a hash; sha256: its first half
    ]
)

PREDICTIONS = pa.schema(  # a row a picture of an evaluation set, in the set's order
    [
        pa.field("set", pa.string(), nullable=False),  # the name it was given
        pa.field("key", pa.string(), nullable=False),  # of the picture in its set
        # The name of the class. Retrieval: the best of the picture's own captions.
        pa.field("label", pa.string(), nullable=False),
        pa.field("predicted", pa.string()),  # likewise what came first; null: a broken picture
        pa.field("correct", pa.bool_(), nullable=False),  # the rank is 1
        pa.field("rank", pa.int32()),  # of the label among all, from 1 on; null: a broken picture
    ]
)
