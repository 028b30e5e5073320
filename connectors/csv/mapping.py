"""Which column is which field of ours, and what the words in its cells mean. Pure.

A column is found by the name configured for it, else by one of the usual English and French names; case, accents,
spaces, hyphens and underscores make no difference. Where there is no column of ids, the e-mail address, in small
letters, is the external id.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date

from core.dates import parse_moment
from core.errors import Misconfigured
from core.ports import FieldState

LAST_SURVEYED = "nps_last_surveyed_at"
HOLD = "nps_hold_until"
#: What we write, in the order new columns are added; the last is only read.
NPS_FIELDS = (
    "nps_score",
    "nps_category",
    "nps_comment",
    "nps_last_surveyed_at",
    "nps_responded_at",
    "nps_follow_up_status",
    "nps_survey_url",
    "nps_may_be_asked_at",
    HOLD,
)
#: Fields of a person in the order `reading` takes them.
PERSON_FIELDS = (
    "external_id",
    "email",
    "first_name",
    "last_name",
    "company",
    "language",
    "country",
    "time_zone",
    "phone",
    "owner",
    "customer_since",
    "opted_out",
    "last_surveyed_at",
    HOLD,
)

_USUAL = {
    "external_id": "id externalid identifiant identifiantclient idclient clientid customerid contactid idcontact userid"
    " recordid uuid numeroclient noclient codeclient customernumber clientnumber ref reference",
    "email": "email mail courriel emailaddress adresseemail adressemail adressecourriel adresseelectronique workemail"
    " emailpro emailprofessionnel adresseemailprofessionnelle",
    "first_name": "firstname prenom givenname forename",
    "last_name": "lastname nom surname familyname nomdefamille",
    "company": "company companyname societe entreprise nomsociete nomdelasociete nomentreprise nomdelentreprise"
    " raisonsociale organisation organization account accountname compte",
    "language": "language langue lang locale preferredlanguage languepreferee",
    "country": "country countrycode pays codepays",
    "time_zone": "timezone fuseau fuseauhoraire",
    "phone": "phone telephone phonenumber tel numerodetelephone mobile portable mobilephone telephoneportable",
    "owner": "owner accountowner accountmanager proprietaire responsable commercial chargedecompte gestionnaire",
    "customer_since": "customersince clientsince clientdepuis customersincedate dateclient",
    "opted_out": "optedout optout desinscrit desabonne desinscription unsubscribed emailoptout hasoptedoutofemail"
    " donotcontact donotsurvey nepascontacter nepassolliciter",
    "last_surveyed_at": "lastsurveyed lastsurveyedat lastsurveyedon lastsurveydate lastsurvey derniereenquete"
    " datederniereenquete datedeladerniereenquete derniersondage datederniersondage",
}
_LANGUAGES = {
    name: code
    for code, names in {
        "en": "english anglais englisch ingles inglese engels",
        "fr": "french francais franzosisch frances francese frans",
        "de": "german allemand deutsch aleman tedesco duits",
        "es": "spanish espagnol espanol spanisch spagnolo spaans castillan",
        "it": "italian italien italiano italienisch italiaans",
        "nl": "dutch neerlandais nederlands niederlandisch flamand flemish vlaams",
        "pt": "portuguese portugais portugues portugiesisch",
    }.items()
    for name in names.split()
}
_LANGUAGE_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*", re.IGNORECASE | re.ASCII)
_YES_WORDS = """
    1 desabonne desinscrit j ja o optedout optout oui si t true unsubscribed v vrai wahr x y yes
"""
_NO_WORDS = """
    0 abonne f false faux inscrit n na nein no non none null optedin optin subscribed
"""
_YES, _NO = frozenset(_YES_WORDS.split()), frozenset(_NO_WORDS.split())


def fold(name: str) -> str:
    """What names of columns are compared by."""
    plain = unicodedata.normalize("NFKD", name.replace("œ", "oe").replace("Œ", "oe")).casefold()
    return "".join(sign for sign in plain if sign.isalnum())


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Where each field of ours stands: indices of columns, -1 for none.

    `person` in the order of PERSON_FIELDS, `attributes` and `nps` by name (an nps field that is absent is left out).
    `id_is_email`: there is no column of ids. `date_asked` is the column of the last survey: the company's own if one
    is mapped, else nps_last_surveyed_at.
    """

    person: tuple[int, ...]
    attributes: tuple[tuple[str, int], ...]
    nps: tuple[tuple[str, int], ...]
    id_is_email: bool
    names: tuple[str, ...]
    guessed: frozenset[str]
    configured_nps: tuple[tuple[str, str], ...] = ()

    @property
    def id_column(self) -> int:
        """The column records are known by."""
        return self.person[1] if self.id_is_email else self.person[0]

    @property
    def own_date_asked(self) -> int:
        """The company's own column of the last survey, or -1."""
        asked = self.person[PERSON_FIELDS.index("last_surveyed_at")]
        return -1 if asked == dict(self.nps).get(LAST_SURVEYED, -1) else asked

    def column_of(self, field: str) -> int:
        """The column an nps field is written to, or -1 if it has to be added."""
        if field == LAST_SURVEYED and self.own_date_asked >= 0:
            return self.own_date_asked
        if field == HOLD:
            return self.person[-1]
        return dict(self.nps).get(field, -1)

    def column_name(self, field: str) -> str:
        """What a column is called that has to be added for this field."""
        return dict(self.configured_nps).get(field, field)


def map_columns(names: Sequence[str], fields: Mapping[str, str], where: str) -> ColumnMap:
    """The mapping of a header. Raises Misconfigured naming what is missing, and what there is instead."""
    columns = _Columns(names, where)
    wanted = {ours: theirs for ours, theirs in fields.items() if theirs}
    wanted_nps = {ours: theirs for ours, theirs in wanted.items() if ours in NPS_FIELDS}
    chosen = {ours: columns.named(ours, theirs) for ours, theirs in wanted.items() if ours not in NPS_FIELDS}
    nps = _nps_columns(columns, wanted_nps, set(chosen.values()))
    taken = {*chosen.values(), *nps.values()}
    guessed = {}
    for ours, usual in _USUAL.items():
        if ours in fields or (ours == "last_surveyed_at" and LAST_SURVEYED in nps):
            continue
        found = next((i for name in usual.split() for i in columns.folded.get(name, ()) if i not in taken), -1)
        if found >= 0:
            guessed[ours] = found
            taken.add(found)
    person = {**guessed, **{ours: i for ours, i in chosen.items() if ours in PERSON_FIELDS}}
    person.setdefault("last_surveyed_at", nps.get(LAST_SURVEYED, -1))
    person[HOLD] = nps.pop(HOLD, -1)
    if person.get("external_id", -1) < 0 and person.get("email", -1) < 0:
        raise Misconfigured(
            f"{where} has neither a column of ids nor one of e-mail addresses; it has {columns.listed()}."
            ' Name one: fields = { external_id = "..." } or { email = "..." }',
            field="fields",
        )
    return ColumnMap(
        person=tuple(person.get(ours, -1) for ours in PERSON_FIELDS),
        attributes=tuple((ours, i) for ours, i in chosen.items() if ours not in PERSON_FIELDS),
        nps=tuple(nps.items()),
        id_is_email=person.get("external_id", -1) < 0,
        names=tuple(names),
        guessed=frozenset(guessed),
        configured_nps=tuple(wanted_nps.items()),
    )


def _nps_columns(columns: _Columns, wanted: Mapping[str, str], taken: set[int]) -> dict[str, int]:
    """The columns of our own fields that are there, in the order of the file."""
    found = {}
    for ours in NPS_FIELDS:
        indices = columns.folded.get(fold(wanted.get(ours, ours)), [])
        free = [i for i in indices if i not in taken]
        if len(free) > 1:
            raise Misconfigured(f"{columns.where} has {len(free)} columns {ours}: remove all but one", field="fields")
        if free:
            found[ours] = free[0]
    return dict(sorted(found.items(), key=lambda item: item[1]))


class _Columns:
    """The columns of a header, found by exact or folded name."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = names
        self.where = where
        self.folded: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self.folded.setdefault(fold(name), []).append(index)

    def named(self, ours: str, theirs: str) -> int:
        """The column configured for a field. Raises Misconfigured."""
        exact = [i for i, name in enumerate(self.names) if name == theirs]
        found = exact or (self.folded.get(fold(theirs), []) if fold(theirs) else [])
        if not found:
            raise Misconfigured(
                f'fields.{ours}: {self.where} has no column "{theirs}"; it has {self.listed()}', field="fields"
            )
        if len(found) > 1:
            raise Misconfigured(
                f'fields.{ours}: {self.where} has {len(found)} columns "{theirs}": rename all but one', field="fields"
            )
        return found[0]

    def listed(self) -> str:
        """The names, for messages."""
        shown = [f'"{name}"' for name in self.names[:30]]
        return ", ".join(shown) + (f" and {len(self.names) - 30} more" if len(self.names) > 30 else "")


def field_states(mapping: ColumnMap) -> list[FieldState]:
    """Every column with what it is taken for, then the NPS fields that are missing."""
    person = zip(PERSON_FIELDS, mapping.person, strict=True)
    taken = {i: ours for ours, i in (*person, *mapping.attributes, *mapping.nps) if i >= 0}
    states = [
        FieldState(name, taken.get(i, ""), taken.get(i, "") in mapping.guessed) for i, name in enumerate(mapping.names)
    ]
    missing = [field for field in NPS_FIELDS if mapping.column_of(field) < 0]
    return states + [FieldState(mapping.column_name(field), field, exists=False) for field in missing]


# --- words in cells -----------------------------------------------------------------------------------------------


def language_of(text: str) -> str | None:
    """`fr` for fr, FR, fr-FR, français; what is no language known here as it stands."""
    if not text:
        return None
    tag = _LANGUAGE_TAG.fullmatch(text)
    return tag[1].lower() if tag else _LANGUAGES.get(fold(text), text)


def is_yes(text: str) -> bool | None:
    """Whether somebody opted out: yes, no, or None if the cell says neither. A date is the day they did."""
    if not text:
        return False
    word = fold(text)
    if word in _YES:
        return True
    if word in _NO or not word:
        return False
    return True if parse_moment(text, UTC) else None


def day_of(text: str) -> date | None:
    """The day a date or moment names; None if it names none."""
    moment = parse_moment(text, UTC)
    return moment.day if moment else None
