"""Pipelines of datatrove (https://github.com/huggingface/datatrove) that tokenize and expand, on one machine or many.

`tokenize` and `expand` are the commands of the same name in several tasks. `make_corpus` makes a corpus of what any
reader and any filters of datatrove give; the steps that it uses go into pipelines of one's own too.
"""

from stochastok_cli.integrations.datatrove.commands import expand as expand
from stochastok_cli.integrations.datatrove.commands import tokenize as tokenize
from stochastok_cli.integrations.datatrove.document_steps import ExpandDocuments as ExpandDocuments
from stochastok_cli.integrations.datatrove.document_steps import FinishCorpus as FinishCorpus
from stochastok_cli.integrations.datatrove.document_steps import NumberDocuments as NumberDocuments
from stochastok_cli.integrations.datatrove.document_steps import ReadSavedDocuments as ReadSavedDocuments
from stochastok_cli.integrations.datatrove.document_steps import SaveDocuments as SaveDocuments
from stochastok_cli.integrations.datatrove.document_steps import TokenizeDocuments as TokenizeDocuments
from stochastok_cli.integrations.datatrove.executors import Tasks as Tasks
from stochastok_cli.integrations.datatrove.keyed_corpus import make_corpus as make_corpus
from stochastok_cli.integrations.datatrove.launch import Submitted as Submitted
