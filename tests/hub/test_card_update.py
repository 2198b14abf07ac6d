"""A push keeps what the owner of a repository has written on its card."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from hub_server import USER

from stochastok_cli import hub
from stochastok_cli.errors import USAGE, UserError
from stochastok_cli.hub import cards
from stochastok_cli.hub.card_update import update_card
from stochastok_cli.manifest import Manifest

REPO = f"{USER}/cards"


def corpus_card(documents: int, license: str | None = None) -> str:
    tree = {
        "kind": "tokenized",
        "tokenizer": {"name": "gpt2", "fingerprint": "0123abcd", "size": 50257},
        "dtype": "uint16",
        "end_of_text": 50256,
        "splits": {"train": {"documents": documents, "tokens": 9}},
        "made_from": {"name": "someone/texts", "fingerprint": "4567cdef"},
    }
    return cards.corpus_card(REPO, Manifest.from_json(tree), license)


def header(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def body(card: str) -> str:
    return card.split("---\n", 2)[2]


def test_the_text_of_the_owner_stays_where_it_is():
    first, second = corpus_card(30), corpus_card(2000)
    assert "2,000 documents" in body(second) and "2,000 documents" not in first
    edited = first.replace("# cards", "# Cards of mine\n\nRead this first.") + "\n## Cite\n\nme\n"
    updated = update_card(REPO, edited, second)
    before, after = "\n# Cards of mine\n\nRead this first.\n\n", "\n\n## Cite\n\nme\n"
    assert body(updated).startswith(before) and body(updated).endswith(after)
    assert body(updated)[len(before) : -len(after)] == body(second)[len("\n# cards\n\n") : -1]
    assert update_card(REPO, updated, second) == updated
    assert update_card(REPO, "", second) == update_card(REPO, first, second) == second


def test_the_header_is_updated_entry_by_entry():
    more = {
        "pretty_name": "Mine",
        "tags": ["my-tag", "stochastok"],
        "size_categories": ["n<1K"],
        "configs": [
            {"config_name": "default", "data_files": "gone.parquet"},
            {"config_name": "raw", "data_files": "raw/*"},
        ],
        "dataset_info": [{"config_name": "raw", "dataset_size": 1}, {"config_name": "default", "dataset_size": 2}],
    }
    new = corpus_card(2000)
    updated = header(update_card(REPO, f"---\n{yaml.safe_dump(more)}---\nMine.\n", new))
    assert updated == {
        "pretty_name": "Mine",
        "tags": ["my-tag", "stochastok", "tokenized"],
        "size_categories": ["1K<n<10K"],
        "configs": [*header(new)["configs"], {"config_name": "raw", "data_files": "raw/*"}],
        "dataset_info": [{"config_name": "raw", "dataset_size": 1}],
    }


@pytest.mark.parametrize(
    ("first", "edited", "second", "expected"),
    [
        ("mit", "mit", "cc0-1.0", "cc0-1.0"),  # the source has another license now
        ("mit", "mit", None, None),
        ("mit", "apache-2.0", "mit", "apache-2.0"),  # the owner's choice
        (None, "apache-2.0", "mit", "apache-2.0"),
        (None, None, "mit", "mit"),
    ],
)
def test_a_license_that_the_owner_has_set_is_kept(first, edited, second, expected):
    existing = corpus_card(1, first).replace("---\n", f"---\nlicense: {edited}\n", 1) if edited and not first else None
    existing = existing or corpus_card(1, first).replace(f"license: {first}", f"license: {edited}")
    assert header(existing).get("license") == edited
    assert header(update_card(REPO, existing, corpus_card(1, second))).get("license") == expected


@pytest.mark.parametrize(
    "existing",
    [
        "Only text.\n",
        "---\nlicense: mit\n---\n# Title\r\n\r\nText with other line ends.\r\n",
        f"Text that\n\n{cards.BEGIN}\n\nhas lost the end mark.\n",
        f"{cards.END}\n\nMarks in the wrong order.\n\n{cards.BEGIN}\n",
    ],
)
def test_a_card_without_our_section_gets_it_at_its_end(existing):
    updated = update_card(REPO, existing, corpus_card(30))
    text = existing.split("---\n")[-1]
    assert text.rstrip() in updated
    assert updated.endswith(body(corpus_card(30))[len("\n# cards\n\n") :])
    again = update_card(REPO, updated, corpus_card(2000))
    assert text.rstrip() in again and "2,000 documents" in again and "| train | 30 documents" not in again


def test_a_card_that_is_only_a_header_gets_the_whole_text():
    updated = update_card(REPO, "---\nlicense: mit\n---\n", corpus_card(30))
    assert header(updated)["license"] == "mit" and "# cards\n" in updated


@pytest.mark.parametrize("repo_type", ["dataset", "model"])
def test_an_edited_card_outlives_a_push(hub_server, tmp_path, repo_type):
    """Questions and models alike; the repository's storage, and what somebody commits meanwhile, stay."""
    (tmp_path / "file.bin").write_bytes(b"content")
    repo = f"{USER}/edited-{repo_type}"

    def push(metrics: dict[str, float]) -> None:
        card = cards.model_card(repo, config_yaml="seed: 0", metrics=metrics, command="stochastok train")
        hub.push_folder(repo, {"": tmp_path}, card=card, retry_command="again", repo_type=repo_type)

    push({"loss": 3.25})
    stored = hub_server.repos[f"{repo_type}s/{repo}"]
    edited = stored.files["README.md"].decode().replace("pipeline_tag: text-generation", "pipeline_tag: other")
    stored.commit({**stored.files, "README.md": f"{edited}\nMy words: où ça ?\n".encode()})
    hub_server.fail("POST", "/commit", 412)  # as if the owner had committed between our look at the card and our commit
    push({"loss": 2.5})
    assert hub_server.faults[0].times == 0
    card = stored.files["README.md"].decode()
    assert "\nMy words: où ça ?\n" in card and "| loss | 2.5 |" in card and "3.25" not in card
    assert header(card)["pipeline_tag"] == "other"
    assert len(re.findall(re.escape(cards.BEGIN), card)) == 1


def test_what_the_owner_commits_during_a_push_is_not_overwritten(hub_server, tmp_path):
    """They edit the card after it was read and before the commit arrives."""
    (tmp_path / "file.bin").write_bytes(b"content")
    repo = f"{USER}/overtaken"

    def push(documents: int) -> hub.PushResult:
        return hub.push_folder(repo, {"": tmp_path}, card=corpus_card(documents), retry_command="again")

    push(1111)
    stored = hub_server.dataset(repo)
    held = hub_server.fail("POST", "/commit", hold=True)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(push, 2222)
        assert held.requested.wait(30)
        edited = stored.files["README.md"] + b"\nMy words.\n"
        stored.commit({**stored.files, "README.md": edited, "mine.txt": b"mine"})
        held.released.set()
        assert pushed.result(30).revision == stored.head
    card = stored.files["README.md"].decode()
    assert "\nMy words.\n" in card and "2,222" in card and "1,111" not in card
    assert (stored.files["mine.txt"], stored.files["file.bin"]) == (b"mine", b"content")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"---\n[unclosed\n---\n", "the header of someone/broken's README.md is not a YAML mapping"),
        (b"---\n- a list\n---\n", "is not a YAML mapping; mend it on the Hub"),
        (b"---\n1: number\n---\n", "is not a YAML mapping; mend it on the Hub"),
        (b"\xff\xfe", "someone/broken's README.md is not UTF-8"),
    ],
)
def test_a_card_that_can_not_be_updated_ends_a_push_before_it_uploads(hub_server, tmp_path, card, message):
    repo = f"{USER}/broken"
    hub_server.add_dataset(repo, {"README.md": card})
    (tmp_path / "weights.safetensors").write_bytes(b"content")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        hub.push_folder(repo, {"": tmp_path}, card=corpus_card(1), retry_command="again")
    assert caught.value.exit_code == USAGE
    assert not hub_server.requests_like("preupload|commit|^PUT")
