"""The page of connectors says what the code says."""

from __future__ import annotations

from connectors.docs import connectors_page


def test_the_page_tells_capabilities_and_settings() -> None:
    lines = connectors_page(["smtp", "mailbox"]).splitlines()
    assert "| Connector | SurveySender | SendLookup | Tried against |" in lines
    (smtp,) = [line for line in lines if line.startswith("| [SMTP]")]
    (mailbox,) = [line for line in lines if line.startswith("| [Local mailbox]")]
    assert smtp.startswith("| [SMTP](#smtp) | yes |  | a simulator")
    assert mailbox.startswith("| [Local mailbox](#mailbox) | yes | yes | real folders")
    assert "| `security` | starttls \\| tls \\| none | starttls | Security. none sends in clear" in "\n".join(lines)
    assert "| `password` | secret (`env:NAME` or `file:PATH`) |  | Password. |" in lines


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    table: list[int] = []
    for line in connectors_page(["smtp", "mailbox"]).splitlines():
        if not line.startswith("|"):
            table = []
            continue
        table.append(line.replace("\\|", "").count("|"))
        assert table[-1] == table[0]
