"""Whatever the Hub answers, the result is right or an error of one line."""

import json
import time
from pathlib import Path

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
from hub_server import USER
from hypothesis import HealthCheck, given, settings

from stochastok_cli import hub
from stochastok_cli.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SHA = "0123456789abcdef" * 2 + "01234567"
INFO = st.fixed_dictionaries(
    {"id": st.just("anyone/hostile") | JSON},
    optional={
        "sha": st.just(SHA) | JSON,
        "siblings": st.lists(st.fixed_dictionaries({}, optional={"rfilename": st.text(max_size=9) | JSON})) | JSON,
        "cardData": st.fixed_dictionaries({}, optional={"license": JSON, "configs": JSON, "dataset_info": JSON}) | JSON,
        "private": JSON,
        "lastModified": JSON,
        "tags": JSON,
    },
)
TREE = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["file", "directory"]) | JSON,
            "path": st.sampled_from(["train.parquet", "../../train.parquet", "/train.parquet", "a\nb.parquet"]) | JSON,
            "size": JSON,
            "oid": JSON,
            "lfs": st.fixed_dictionaries({}, optional={"oid": JSON, "size": JSON, "pointerSize": JSON}) | JSON,
        },
    ),
    max_size=3,
)
ANSWERS = st.one_of(
    INFO.map(json.dumps).map(str.encode),
    TREE.map(json.dumps).map(str.encode),
    JSON.map(json.dumps).map(str.encode),
    st.sampled_from([b"", b"<html>\nan error\n</html>", b"\xff\xfe", b"[" * 100_000, b"9" * 5000]),
)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"ids": [[1, 2]], "text": ["a"]}), sink)
    card = b"---\ndataset_info:\n  splits:\n  - name: train\n    num_examples: many\n---\n"
    return {"train.parquet": sink.getvalue().to_pybytes(), "README.md": card, "manifest.json": b"{}"}


def pull() -> object:
    return [ids.tolist() for ids, _ in hub.stream_ids("anyone/hostile").ids("train")]


def read_texts() -> object:
    rows = hub.load_text_dataset("anyone/hostile").rows
    return rows and list(rows())


def read_manifest() -> object:
    listed = hub.list_files("anyone/hostile")
    return listed.json("manifest.json") if "manifest.json" in listed.paths else None


def push() -> object:
    card = hub.model_card(f"{USER}/hostile", config_yaml="", metrics={}, command="")
    file = {"file.bin": Path(__file__)}
    return hub.push_folder(f"{USER}/hostile", file, card=card, retry_command="again", repo_type="dataset").url


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    request=st.sampled_from(["GET /api/datasets/", "GET /revision", "GET /tree", "POST /paths-info", "GET /resolve"]),
    action=st.sampled_from([pull, read_texts, read_manifest, push]),
    answer=ANSWERS,
    after=st.integers(0, 1),
)
def test_answers_of_any_kind(hub_server, files, monkeypatch, request, action, answer, after):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub_server.reset()
    hub_server.add_dataset("anyone/hostile", files)
    hub_server.fail(*request.split(), body=answer, times=1000, after=after)
    message = ""
    try:
        action()
    except UserError as error:
        message = str(error)
    assert "\n" not in message and len(message) < 1500


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"name": null}', b'"someone"', b"null"])
def test_an_account_without_a_name(hub_server, answer):
    hub_server.fail("GET", "/whoami", body=answer, times=10)
    with pytest.raises(
        UserError, match="^the Hub does not tell the name of the account; give --repo or --hf-username$"
    ):
        hub.username()


def test_a_message_of_several_lines_is_one_line(hub_server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    message = json.dumps({"error": "first line\n\tsecond line\r\n" + "x" * 5000}).encode()
    hub_server.fail("GET", "/api/datasets", 418, body=message, times=10)
    with pytest.raises(UserError, match=r"answered 418 about anyone/x: first line second line x+…$") as caught:
        hub.list_files("anyone/x")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("after", "waited"), [("20", 20), ("999999999", 600), ("1e300", 8), ("-5", 8), ("9" * 5000, 8)], ids=str
)
def test_a_wait_that_the_hub_asks_for_is_bounded(hub_server, monkeypatch, after, waited):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub_server.fail("POST", "/create", 503, times=5, **{"Retry-After": after})
    push()
    assert max(slept) == waited
