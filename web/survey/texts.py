"""The wording of mails and pages, per language. A placeholder is `{brand}`; texts are plain, templates escape them.

No text sets a deadline, begs for a score or names an employee; French keeps its narrow and wide no-break spaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from core.scores import Category


@dataclass(frozen=True, slots=True)
class Texts:
    """Everything a respondent reads, in one language."""

    language: str
    question: str
    least: str
    most: str
    # the mail
    subject: str
    subject_reminder: str
    hello: str
    hello_name: str
    reminder: str
    shared: str
    how: str
    how_text: str
    anonymous: str
    why: str
    no_more: str
    # the page
    progress_score: str
    progress_comment: str
    promoter: str
    passive: str
    detractor: str
    any_score: str
    optional: str
    send: str
    rather_not: str
    change: str
    add_comment: str
    your_score: str
    # messages
    confirm: str
    confirm_more: str
    confirm_button: str
    confirm_change: str
    choose_score: str
    reload: str
    not_stored: str
    thanks: str
    thanks_more: str
    answered_before: str
    closed: str
    closed_more: str
    other_link: str
    other_link_more: str
    declined: str
    declined_more: str
    unknown: str
    unknown_more: str
    expired: str
    expired_more: str
    stop_title: str
    stop_question: str
    stop_button: str
    stopped: str
    stopped_more: str
    trademark: str

    def follow_up(self, band: Category | None) -> str:
        """The follow-up question of a band, or the one for everybody while no score is chosen."""
        return self.any_score if band is None else str(getattr(self, band.value))

    def about(self, brand: str) -> Texts:
        """The same with the brand in place."""
        values = {one.name: str(getattr(self, one.name)).replace("{brand}", brand) for one in fields(self)}
        return Texts(**values)


ENGLISH = Texts(
    language="en",
    question="How likely are you to recommend {brand} to a friend or colleague?",
    least="0 = not at all likely",
    most="10 = extremely likely",
    subject="How likely are you to recommend {brand}?",
    subject_reminder="A reminder: how likely are you to recommend {brand}?",
    hello="Hello,",
    hello_name="Hello {name},",
    reminder="A few days ago we asked you one question. If you have a moment, your answer still helps us.",
    shared="This message goes to everybody who reads this mailbox; one answer for all of you is enough.",
    how="Choose a number. The page it opens lets you add a word; nothing is sent before you press the button there.",
    how_text="Answer here, from 0 (not at all likely) to 10 (extremely likely):",
    anonymous="Your answer is anonymous: we do not learn who gave it.",
    why="You receive this message because you are a customer of {brand}.",
    no_more="No more surveys from {brand}",
    progress_score="Step 1 of 2: your score",
    progress_comment="Step 2 of 2: a word of explanation",
    promoter="What do you value most about {brand}?",
    passive="What would make it a 9 or a 10?",
    detractor="What went wrong?",
    any_score="What is the main reason for your score?",
    optional="optional",
    send="Send my answer",
    rather_not="I’d rather not answer",
    change="Change my score",
    add_comment="Add this",
    your_score="Your score: {score}",
    confirm="One more step: is this your answer?",
    confirm_more="Some mail programs open links and press buttons by themselves, so we would like to be sure.",
    confirm_button="Yes, this is my answer",
    confirm_change="No, change it",
    choose_score="Please choose a number from 0 to 10.",
    reload="This page had been open for a while. Please press the button once more; what you wrote is still here.",
    not_stored="Your answer could not be stored just now. Please press the button again in a moment; what you wrote is"
    " still here.",
    thanks="Thank you, your answer has arrived.",
    thanks_more="You may close this page. Until the survey ends you can change your answer with the same link.",
    answered_before="You have answered already. You may change your answer here.",
    closed="This survey has ended",
    closed_more="Your earlier answer stands as it was. Thank you for it.",
    other_link="This survey has been answered",
    other_link_more="The answer was given with another link. Because it is anonymous, only that link can change it.",
    declined="All right, no answer needed",
    declined_more="We will leave you alone for a good while.",
    unknown="This link does not lead to a survey",
    unknown_more="It may have been cut off on its way. Please open it from the message once more, or copy it whole.",
    expired="This survey ended a long time ago",
    expired_more="Its answers are not taken any more. Thank you all the same.",
    stop_title="No more surveys",
    stop_question="Shall we stop sending you surveys from {brand}?",
    stop_button="Yes, no more surveys",
    stopped="Done: no more surveys",
    stopped_more="You will not receive surveys from {brand} any more.",
    trademark="Net Promoter®, NPS® and the NPS-related emoticons are registered trademarks, and Net Promoter Score℠ and"
    " Net Promoter System℠ are service marks, of Bain & Company, Inc., NICE Systems, Inc. and Fred Reichheld.",
)

FRENCH = Texts(
    language="fr",
    question="Quelle est la probabilité que vous recommandiez {brand} à un ami ou à un collègue ?",
    least="0 = pas du tout probable",
    most="10 = extrêmement probable",
    subject="Recommanderiez-vous {brand} ?",
    subject_reminder="Petit rappel : recommanderiez-vous {brand} ?",
    hello="Bonjour,",
    hello_name="Bonjour {name},",
    reminder="Il y a quelques jours, nous vous avons posé une question. Votre réponse nous est toujours utile.",
    shared="Ce message s’adresse à tous ceux qui lisent cette boîte ; une seule réponse suffit.",
    how="Choisissez une note. Sur la page qui s’ouvre, vous pourrez ajouter un mot ; rien n’est envoyé tant que vous"
    " n’y avez pas appuyé sur le bouton.",
    how_text="Répondez ici, de 0 (pas du tout probable) à 10 (extrêmement probable) :",
    anonymous="Votre réponse est anonyme : nous ne saurons pas qui l’a donnée.",
    why="{brand} vous écrit parce que vous êtes client.",
    no_more="Ne plus recevoir d’enquêtes",
    progress_score="Étape 1 sur 2 : votre note",
    progress_comment="Étape 2 sur 2 : un mot d’explication",
    promoter="Qu’appréciez-vous le plus chez {brand} ?",
    passive="Que faudrait-il pour un 9 ou un 10 ?",
    detractor="Qu’est-ce qui n’a pas été ?",
    any_score="Quelle est la principale raison de votre note ?",
    optional="facultatif",
    send="Envoyer ma réponse",
    rather_not="Je préfère ne pas répondre",
    change="Changer ma note",
    add_comment="Ajouter",
    your_score="Votre note : {score}",
    confirm="Une dernière étape : est\u2011ce bien votre réponse ?",
    confirm_more="Certaines messageries ouvrent les liens et appuient sur les boutons toutes seules ; nous préférons"
    " donc vous poser la question.",
    confirm_button="Oui, c’est ma réponse",
    confirm_change="Non, la modifier",
    choose_score="Veuillez choisir une note de 0 à 10.",
    reload="Cette page était ouverte depuis un moment. Appuyez encore une fois sur le bouton ; votre texte est là.",
    not_stored="Votre réponse n’a pas pu être enregistrée. Appuyez de nouveau sur le bouton dans un instant ; votre"
    " texte est là.",
    thanks="Merci, votre réponse est bien arrivée.",
    thanks_more="Vous pouvez fermer cette page. Jusqu’à la fin de l’enquête, le même lien permet de la modifier.",
    answered_before="Vous avez déjà répondu. Vous pouvez modifier votre réponse ici.",
    closed="Cette enquête est terminée",
    closed_more="Votre réponse reste telle quelle. Merci de l’avoir donnée.",
    other_link="Une réponse a déjà été donnée",
    other_link_more="Elle l’a été avec un autre lien. Comme elle est anonyme, seul ce lien permet de la modifier.",
    declined="Entendu, aucune réponse n’est nécessaire",
    declined_more="Nous vous laisserons tranquille un bon moment.",
    unknown="Ce lien ne mène à aucune enquête",
    unknown_more="Il a peut-être été coupé en route. Ouvrez-le de nouveau depuis le message, ou copiez-le en entier.",
    expired="Cette enquête est terminée depuis longtemps",
    expired_more="Les réponses n’y sont plus prises en compte. Merci tout de même.",
    stop_title="Plus d’enquêtes",
    stop_question="Souhaitez-vous ne plus recevoir d’enquêtes ({brand}) ?",
    stop_button="Oui, plus d’enquêtes",
    stopped="C’est fait : plus d’enquêtes",
    stopped_more="{brand} ne vous enverra plus d’enquêtes.",
    trademark="Net Promoter®, NPS® et les émoticônes liées au NPS sont des marques déposées, Net Promoter Score℠ et Net"
    " Promoter System℠ des marques de service, de Bain & Company, Inc., NICE Systems, Inc. et Fred Reichheld.",
)

_LANGUAGES: Mapping[str, Texts] = {"en": ENGLISH, "fr": FRENCH}


def language_of(written: str | None, offered: Sequence[str]) -> str:
    """The language somebody is addressed in: theirs if it is offered, else the first. `fr-BE` and `FR` are `fr`."""
    wanted = (written or "").strip().lower().replace("_", "-").partition("-")[0]
    return wanted if wanted in offered else offered[0]


def texts_in(language: str, brand: str) -> Texts:
    """The wording in a language, English where there is none, with the brand in place."""
    return _LANGUAGES.get(language, ENGLISH).about(brand)
