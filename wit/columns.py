"""Columns of tables that others made."""

import pyarrow as pa

from wit.errors import UserError


def cast(path: str, table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column in the type of `field`; nulls where the table has none of this name.

    Raises a UserError that names the file, the column and both types.
    """
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    column = table[field.name]
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise UserError(
            f"{path}: column {field.name!r} holds {column.type}, not {field.type}; correct it or "
            "drop it"
        ) from error
