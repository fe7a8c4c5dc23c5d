"""What an administrator is told before an issuer is believed."""

from __future__ import annotations

from keycache.cli.commands.issuers import question
from keycache.v1.admin_pb2 import ListedIssuer


def test_the_question_names_the_addresses_that_an_approval_believes() -> None:
    issuer = ListedIssuer(id="5d0c9a4e", name="CN=Carl", held=1, sample_addresses=["a@evil.example", "zoe@partner.example"])
    asked = "Approve CN=Carl (5d0c9a4e)? Its 1 held key is then served. Keys of a@evil.example, zoe@partner.example."
    assert question(issuer, approve=True) == asked
    bare = ListedIssuer(id="5d0c9a4e", name="CN=Carl", held=2)
    assert question(bare, approve=False) == "Reject CN=Carl (5d0c9a4e)? Its 2 held keys are then dropped."
