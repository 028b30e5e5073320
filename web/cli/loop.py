"""Commands around the loop: tick, worker, preview, why, status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from core.jobs.context import JobReport
from core.storage.status import status as read_status
from web.cli.output import (
    command,
    context,
    count,
    json_option,
    print_json,
    print_table,
    say,
    settings,
    stop_gently,
    when,
)

TOLD = 20  # messages per job that are worth a line


@command("tick", short_help="Do everything that is due now.")
@json_option
def tick(as_json: bool) -> None:
    """Do everything that is due now, until nothing is: read customers, plan, send, write scores back. For cron."""
    from core.jobs import tick as tick_job

    built = context()
    stop_gently(built)
    reports = tick_job.run(built)
    if as_json:
        print_json(tick_job.document(reports))
    else:
        rows = [(one.job, one.done, one.failed, f"{one.seconds:.1f} s") for one in reports]
        print_table(("job", "done", "failed", "took"), rows)
    _tell(reports)
    if any(one.failed for one in reports):
        raise click.exceptions.Exit(1)


def _tell(reports: list[JobReport]) -> None:
    for one in reports:
        for message in one.messages[:TOLD]:
            say(f"{one.job}: {message}")
        if len(one.messages) > TOLD:
            say(f"{one.job}: and {len(one.messages) - TOLD} more")


@command("worker", short_help="Do what is due, for ever.")
def worker() -> None:
    """Do what `tick` does, for ever. Ctrl+C or SIGTERM ends it after what it is doing."""
    from web.worker import Worker

    built = context()
    stop_gently(built)
    say("working; Ctrl+C stops")
    Worker(built, settings().heartbeat_url).run()


@command("preview", short_help="Who would be asked now, and who not.")
@click.argument("campaign")
@click.option("--at", "at", metavar="TIME", help="As of another moment, such as 2026-12-24 or 2026-12-24T09:00.")
@click.option("--limit", type=click.IntRange(min=0), help="List at most so many people; the counts are always whole.")
@json_option
def preview(campaign: str, at: str | None, limit: int | None, as_json: bool) -> None:
    """The dry run of a campaign: who would be asked now, who not and by which rule. Writes nothing."""
    from core.jobs.preview import preview as preview_campaign

    shown = 20 if limit is None and not as_json else limit
    document = preview_campaign(context(), campaign, at=_moment(at), limit=shown)
    if as_json:
        print_json(document)
    else:
        _print_preview(document)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f'--at "{text}" is not a moment; write it like 2026-12-24T09:00') from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_preview(document: dict[str, Any]) -> None:
    counts = document["counts"]
    click.echo(f"{document['campaign']} at {when(document['at'])}")
    click.echo(f"\nWould be asked: {counts['asked']:,}")
    print_table(("", "", ""), [("", one["email"], f"person {one['person']}") for one in document["asked"]])
    _more(counts["asked"], len(document["asked"]))
    not_asked = sum(counts["not_asked"].values())
    click.echo(f"\nWould not be asked: {not_asked:,}")
    rows = sorted(counts["not_asked"].items(), key=lambda item: -item[1])
    print_table(("rule", "people"), rows, indent="  ")
    if document["not_asked"]:
        click.echo("")
        listed = [(one["email"] or "(no address)", one["rule"], _until(one["until"])) for one in document["not_asked"]]
        print_table(("address", "rule", "free"), listed, indent="  ")
        _more(not_asked, len(document["not_asked"]))
    _print_forecast(document)


def _print_forecast(document: dict[str, Any]) -> None:
    margin = document["expected_margin"]
    give = "" if margin is None else f", which would tell the NPS to within {margin:g} points"
    click.echo(f"\nExpected: {count(document['expected_answers'], 'answer')}{give}.")
    for reason in document.get("held_back", ()):
        click.echo(f"Held back: {reason}.")


def _more(total: int, listed: int) -> None:
    if total > listed > 0:
        click.echo(f"  ... and {total - listed:,} more (--limit)")


def _until(moment: str | None) -> str:
    return when(moment) if moment else "no date frees"


@command("why", short_help="Why is somebody asked, or not?")
@click.argument("address")
@json_option
def why(address: str, as_json: bool) -> None:
    """Each clock of one person with its date, every time they were asked, and when they are free."""
    from core.jobs.why import explain

    document = explain(context(), address)
    if as_json:
        print_json(document)
    else:
        _print_why(address, document)


def _print_why(address: str, document: dict[str, Any]) -> None:
    click.echo(f"{address}: person {document['person']}")
    print_table(
        ("record", "connection", "address"),
        [(one.get("external_id"), one.get("connection"), one.get("email")) for one in document["identities"]],
        indent="  ",
    )
    click.echo("\nClocks")
    rows = [
        (one["rule"], when(one["last_at"]), when(one["free_at"]), "blocks" if one["blocks"] else "")
        for one in document["clocks"]
    ]
    print_table(("rule", "since", "free", ""), rows, indent="  ")
    click.echo("\nAsked")
    touches = [
        (when(one["reserved_at"] or one["asked_at"]), one["campaign"] or one["source"], one["state"], one["reason"])
        for one in document["touches"]
    ]
    print_table(("when", "by", "state", "reason"), touches, indent="  ")
    if not touches:
        click.echo("  never")
    click.echo(f"\n{_free(document)}")
    if document.get("others"):
        say(f"{count(document['others'], 'other person', 'other people')} share this address")


def _free(document: dict[str, Any]) -> str:
    if document["free_at"] is None:
        return "No date frees this person: what blocks must change first."
    blocks = any(one["blocks"] for one in document["clocks"])
    return f"Free from {when(document['free_at'])} on." if blocks else "Free now."


@command("status", short_help="What is going on.")
@json_option
def status(as_json: bool) -> None:
    """Touches, deliveries and inbox by state, each connection with its lag, what needs a human."""
    built = context()
    with built.store.read() as tx:
        document = read_status(tx, built.clock.now_ms(), settings().clock_offset)
    if as_json:
        print_json(document)
        return
    if document["clock_offset"]:
        click.echo(f"The clock is moved by {timedelta(seconds=document['clock_offset'])} (BOUCLE_CLOCK_OFFSET).\n")
    _print_connections(document["connections"])
    _print_campaigns(document["campaigns"])
    for part in ("touches", "deliveries", "inbox"):
        there = {state: number for state, number in document[part].items() if number}
        said = ", ".join(f"{number:,} {state}" for state, number in there.items()) or "none"
        click.echo(f"{part + ':':<12}{said}")
    _print_needs(document)


def _print_connections(rows: list[dict[str, Any]]) -> None:
    table = [
        (one["name"], one["kind"], one["state"], one["records"], one["bad_records"], one["missing"], _ago(one))
        for one in rows
    ]
    print_table(("connection", "kind", "state", "records", "bad", "behind", "last read"), table)
    for one in rows:
        if one["reason"]:
            click.echo(f"  {one['name']}: {one['reason']}")
    click.echo("" if rows else "No connection is set up: apply a workspace file.\n")


def _ago(row: dict[str, Any]) -> str:
    lag = row["lag_seconds"]
    return "-" if lag is None else f"{timedelta(seconds=round(lag))} ago"


def _print_campaigns(rows: list[dict[str, Any]]) -> None:
    table = [(one["name"], one["state"], one["wave"], sum(one["touches"].values())) for one in rows]
    print_table(("campaign", "state", "wave", "asks"), table)
    for one in rows:
        if one["reason"]:
            click.echo(f"  {one['name']}: {one['reason']}")
    click.echo("") if rows else None


def _print_needs(document: dict[str, Any]) -> None:
    for one in document["incidents"]:
        about = one["campaign"] or one["connection"] or "everybody"
        click.echo(f"! {one['kind']} {about} since {when(one['opened_at'])}: {one['reason']}")
    unknown = document["touches"].get("unknown", 0)
    if unknown:
        click.echo(f"! {count(unknown, 'ask')} may or may not have arrived; they count as asked")
    if document["suspect_answers"]:
        click.echo(f"! {count(document['suspect_answers'], 'answer')} may be a machine's: flask responses list")
    if document["deliveries"].get("failed"):
        click.echo("! some deliveries failed: flask deliveries list --state failed")
