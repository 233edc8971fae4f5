"""Readers of what `dinoserve embed` writes, by packages that others would read it with."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import webdataset

TYPES = {"f32": pyarrow.float32(), "f16": pyarrow.float16(), "i8": pyarrow.int8()}


@dataclass
class Rows:
    """The rows of an output, in its order."""

    ids: list[str]
    vectors: np.ndarray
    labels: list[str | None] = field(default_factory=list)
    scales: np.ndarray | None = None


def read_npy(matrix: bytes, paths: bytes) -> Rows:
    return Rows(paths.decode().splitlines(), np.load(io.BytesIO(matrix), allow_pickle=False))


def read_jsonl(data: bytes) -> Rows:
    lines = [json.loads(line) for line in data.splitlines()]
    ids = [line["path"] for line in lines]
    return Rows(ids, np.array([line["embedding"] for line in lines], np.float32), [line.get("label") for line in lines])


def read_tar(path: Path) -> Rows:
    """Reads the samples by the package webdataset, with its decoders of .npy and .json."""
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode())
    keys = [sample["__key__"] for sample in samples]
    if keys != sorted(set(keys)):
        raise ValueError(f"{path.name}: the keys are not sorted or not unique: {keys[:5]}")
    described = [sample["json"] for sample in samples]
    vectors = np.array([sample["embedding.npy"] for sample in samples])
    return Rows([each["id"] for each in described], vectors, [each.get("label") for each in described])


def fixed_lists(array: pyarrow.ChunkedArray) -> np.ndarray:
    whole = array.combine_chunks()
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False)).reshape(len(whole), whole.type.list_size)


def metadata(path: Path) -> dict[str, str]:
    """Returns what the file says of the model."""
    found = pyarrow.parquet.read_schema(path).metadata or {}
    return {name.decode(): value.decode() for name, value in found.items() if name.startswith(b"dinoserve.")}


def read_parquet(path: Path, dtype: str = "f32", column: str = "embedding") -> Rows:
    """Reads a file by pyarrow, checks the types of its columns, and that DuckDB and polars read the same."""
    table = pyarrow.parquet.read_table(path)
    expect(path, "id", table.schema.field("id").type, pyarrow.string())
    expect(path, "label", table.schema.field("label").type, pyarrow.string())
    kind = table.schema.field(column).type
    if not pyarrow.types.is_fixed_size_list(kind):
        raise ValueError(f"{path.name}: {column} is {kind}, not a list of fixed size")
    expect(path, column, kind.value_type, TYPES[dtype])
    rows = Rows(table["id"].to_pylist(), fixed_lists(table[column]), table["label"].to_pylist())
    if dtype == "i8":
        expect(path, f"{column}_scale", table.schema.field(f"{column}_scale").type, pyarrow.float32())
        rows.scales = table[f"{column}_scale"].to_numpy()
    compare_duckdb(path, rows, dtype, column)
    compare_polars(path, rows, dtype, column)
    return rows


def expect(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{path.name}: {name} is {found}, not {expected}")


def compare_duckdb(path: Path, rows: Rows, dtype: str, column: str) -> None:
    query = f'select id, label, "{column}" from read_parquet(?) order by file_row_number'
    with duckdb.connect() as connection:
        found = connection.execute(query, [str(path)]).fetchall()
        # DuckDB reads half precision as single precision.
        element = {"f32": "FLOAT", "f16": "FLOAT", "i8": "TINYINT"}[dtype]
        kind = connection.execute(f'select typeof("{column}") from read_parquet(?) limit 1', [str(path)]).fetchone()
        if kind and kind[0] not in (f"{element}[]", f"{element}[{rows.vectors.shape[1]}]"):
            raise ValueError(f"{path.name}: DuckDB reads {column} as {kind[0]}")
    same(path, "DuckDB", rows, [row[0] for row in found], [row[1] for row in found], [row[2] for row in found])


def compare_polars(path: Path, rows: Rows, dtype: str, column: str) -> None:
    found = polars.read_parquet(path)
    element = {"f32": polars.Float32, "f16": polars.Float16, "i8": polars.Int8}[dtype]
    kind = found.schema[column]
    if not (isinstance(kind, polars.Array) and kind.inner == element and kind.shape == rows.vectors.shape[1:]):
        raise ValueError(f"{path.name}: polars reads {column} as {kind}")
    same(path, "polars", rows, found["id"].to_list(), found["label"].to_list(), found[column].to_list())


def same(path: Path, reader: str, rows: Rows, ids: list[str], labels: list[str | None], vectors: list[Any]) -> None:
    if ids != rows.ids or labels != rows.labels:
        raise ValueError(f"{path.name}: {reader} reads other ids or labels than pyarrow")
    if not np.array_equal(np.array(vectors, np.float64).reshape(rows.vectors.shape), rows.vectors.astype(np.float64)):
        raise ValueError(f"{path.name}: {reader} reads other values than pyarrow")
