"""Columns of Arrow tables: how they are found by name, also inside of structs, and their values as Python objects."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


def column_path(fields: "Iterable[pyarrow.Field]", name: str) -> list[str] | None:
    """The names that lead from the outermost column to one; None if there is no such column.

    A column whose own name has dots comes before one inside of structs.

    >>> import pyarrow
    >>> schema = pyarrow.schema({"id": pyarrow.int64(), "meta": pyarrow.struct({"text": pyarrow.string()})})
    >>> column_path(schema, "meta.text"), column_path(schema, "id"), column_path(schema, "text")
    (['meta', 'text'], ['id'], None)
    """
    import pyarrow.types

    types = {field.name: field.type for field in fields}
    if name in types:
        return [name]
    for place, character in enumerate(name):
        kind = types.get(name[:place]) if character == "." else None
        if kind is not None and pyarrow.types.is_struct(kind):
            rest = column_path(kind, name[place + 1 :])
            if rest is not None:
                return [name[:place], *rest]
    return None


def column_type(schema: "pyarrow.Schema", path: Sequence[str]) -> "pyarrow.DataType":
    """The type of the column that a path leads to."""
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def take_column(table: "pyarrow.RecordBatch | pyarrow.Table", path: Sequence[str]) -> Any:
    """The column that a path leads to. A row in which a struct is null has no value there."""
    import pyarrow.compute

    column = table.column(path[0])
    for name in path[1:]:
        column = pyarrow.compute.struct_field(column, name)
    return column


def column_values(column: Any) -> Iterator[Any]:
    """The values of an array one by one. Text that is not UTF-8 comes as bytes, or inside of others as the error."""
    import pyarrow

    for scalar in column:
        try:
            value = scalar.as_py()
        except UnicodeDecodeError as error:
            text = scalar.value if isinstance(scalar, pyarrow.DictionaryScalar) else scalar
            value = text.as_buffer().to_pybytes() if hasattr(text, "as_buffer") else error
        yield value
