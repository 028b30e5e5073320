"""`flask people`: what concerns one person."""

from __future__ import annotations

import click

from core.contacts import address_hash
from core.errors import NotFound
from core.storage.people import find_people
from core.storage.people_gone import erase_people
from web.cli.output import command, context, count


@click.group("people", short_help="Erase a person.")
def group() -> None:
    """What concerns one person."""


@command("erase")
@click.argument("address")
def erase(address: str) -> None:
    """Erase what is known of everybody behind an address: records, comments, links. They are never asked again."""
    built = context()
    with built.store.reservation() as tx:
        found = find_people(tx, built.pepper, address)
        if not found:
            raise NotFound(f"nobody with the address {address} is known; nothing was erased")
        hashed = address_hash(built.pepper, address)
        erase_people(tx, found, address, hashed, built.clock.now_ms(), "cli")
    built.store.checkpoint()
    click.echo(
        f"{count(len(found), 'person', 'people')} erased. Delete them in the source, too: what it still shows is read"
        " again, without history and never asked. Mails that were written into a local mailbox stay in its folder."
    )


group.add_command(erase)
