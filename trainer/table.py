"""What is in a shard, as the reader needs it: a row a sample, in the order of its numbers.

From a harvest's Parquet file (its successful rows) or from one that `wit shards index` wrote.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit.errors import StorageError

TABLE = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("texts", pa.list_(pa.string())),  # those that are not blank; [] is a broken sample
        pa.field("ext", pa.string()),  # of the member KEY.EXT in the tar
        pa.field("offset", pa.int64()),  # bytes into the tar, of the picture; -1: it has none
        pa.field("size", pa.int64()),  # bytes
    ]
)
COLUMNS = ("key", "caption", "image_ext", "image_offset", "image_size")
REMEDY = "run: wit shards verify (or, for others' shards, wit shards index) on its folder"


def read_rows(path: str, data: bytes, samples: int) -> pa.RecordBatch:
    """The rows of a Parquet file (its bytes) as TABLE.

    Raises:
        StorageError: for bytes that are no such table, another number of samples than the index
            says, a key that comes twice.
    """
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
        names = parquet.schema_arrow.names
        absent = [name for name in COLUMNS if name not in names]
        if absent:
            raise StorageError(
                f"{path}: has no column {absent[0]!r}, so it is no shard's; {REMEDY}"
            )
        table = parquet.read(columns=[*COLUMNS, *(["status"] if "status" in names else [])])
        if "status" in names:
            table = table.filter(pc.equal(table["status"], "success"))
        table = table.combine_chunks()
        columns = [_column(table, name) for name in COLUMNS]
    except pa.ArrowException as error:
        said = " ".join(str(error).split())
        raise StorageError(f"{path}: not a readable table of samples ({said}); {REMEDY}") from error
    if table.num_rows != samples:
        raise StorageError(
            f"{path}: has {table.num_rows:,} samples, the manifest says {samples:,}: it is of "
            f"another run; {REMEDY}"
        )
    _check_keys(path, columns[0])
    return pa.RecordBatch.from_arrays(columns, schema=TABLE)


def _column(table: pa.Table, name: str) -> pa.Array:
    chunks = table[name].chunks
    column = chunks[0] if chunks else pa.array([], table[name].type)
    if name == "caption":
        return _texts(column)
    if name in ("key", "image_ext"):
        return column.cast(pa.string()).fill_null("")
    return column.cast(pa.int64()).fill_null(-1)


def _texts(column: pa.Array) -> pa.Array:
    """Lists of the texts that are not blank, of a column of texts or of lists of them."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        parents, texts = pc.list_parent_indices(column), pc.list_flatten(column)
    else:
        parents, texts = pa.array(range(len(column)), pa.int64()), column
    texts = texts.cast(pa.string())
    there = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).fill_null(False)
    texts, parents = texts.filter(there), parents.filter(there).to_numpy()
    offsets = parents.searchsorted(range(len(column) + 1)) if len(column) else [0]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts)


def _check_keys(path: str, keys: pa.Array) -> None:
    if len(keys.unique()) == len(keys):
        return
    counts = pc.value_counts(keys)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0]
    raise StorageError(f"{path}: key {repeated.as_py()!r} comes twice; {REMEDY}")
