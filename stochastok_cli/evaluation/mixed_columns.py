"""Rows of files whose columns are not the same everywhere, as after published files were concatenated.

`datasets` fails there: it casts all rows to the columns of the first megabytes.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import short_repr
from stochastok_cli.evaluation.file_problems import UnreadableFile

if TYPE_CHECKING:
    import datasets
    import pyarrow


def read_all_columns(builder: Any) -> "datasets.DatasetDict":
    """The rows of a `datasets.ArrowBasedBuilder` with the columns that any of them have, in memory.

    A row has None in the columns that it lacks. Numbers become text in a column that has text elsewhere, and other
    types are mixed where this version of `datasets` can do that.

    Raises UnreadableFile, which names a column whose types can't be mixed.
    """
    import datasets

    splits = builder._split_generators(datasets.DownloadManager())
    builder.info.features = None  # of the first rows, to which it would cast all others
    return datasets.DatasetDict(
        {
            split.name: datasets.Dataset(
                _concatenate([table for _, table in builder._generate_tables(**split.gen_kwargs)])
            )
            for split in splits
        }
    )


def _concatenate(tables: "Sequence[pyarrow.Table]") -> "pyarrow.Table":
    import pyarrow

    names = dict.fromkeys(name for table in tables for name in table.column_names)
    columns = {name: _column(name, tables) for name in names}
    return pyarrow.table(columns)


def _column(name: str, tables: "Sequence[pyarrow.Table]") -> "pyarrow.ChunkedArray":
    """A column over all tables, of one type."""
    import pyarrow

    parts = [table[name] if name in table.column_names else pyarrow.nulls(len(table)) for table in tables]
    types = [part.type for part in parts]
    try:
        fields = [pyarrow.schema([(name, type_)]) for type_ in types]
        common = pyarrow.unify_schemas(fields, promote_options="permissive").field(name).type
    except pyarrow.ArrowTypeError:
        return _mixed(name, parts)
    return _joined(parts).cast(common)


def _joined(parts: "Sequence[Any]") -> "pyarrow.ChunkedArray":
    """Parts of a column as one."""
    import pyarrow

    return pyarrow.concat_tables([pyarrow.table({"": part}) for part in parts], promote_options="permissive")[""]


def _mixed(name: str, parts: "Sequence[Any]") -> "pyarrow.ChunkedArray":
    """Parts of a column whose types have no common one: as text where all are simple, or as JSON."""
    import datasets
    import pyarrow

    types = list(dict.fromkeys(part.type for part in parts if part.type != pyarrow.null()))
    texts = (pyarrow.string(), pyarrow.large_string())
    if all(type_ in texts or pyarrow.types.is_primitive(type_) for type_ in types):
        return _joined([part.cast(pyarrow.large_string()) for part in parts])
    if (mixed := getattr(datasets, "Json", None)) is None:
        raise UnreadableFile(f"the column {short_repr(name)} is {types[0]} in some rows and {types[1]} in others")
    return _joined([pyarrow.array(_as_json(part, mixed.pa_type), mixed.pa_type) for part in parts])


def _as_json(part: Any, json_type: Any) -> list[str | None]:
    """Values as JSON. Those of `json_type` are that already."""
    values = part.to_pylist()
    if part.type == json_type:
        return values
    return [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]
