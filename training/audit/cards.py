"""Prepare a check's findings for audit pages and reports: their number, and for each a card with pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from training.audit.checks import Check
from training.audit.findings import Finding
from training.data.dataset import Picture
from training.pages.images import InlineImage, thumbnail

_PICTURES_OF_A_CARD = 6


@dataclass(frozen=True)
class CardPicture:
    """A picture on a card. `place` is its class, and its split if the data gives one."""

    id: str
    place: str
    image: InlineImage | None


@dataclass(frozen=True)
class Card:
    """A finding. `further` counts the pictures that the card leaves out; it is empty if there are none."""

    pictures: Sequence[CardPicture]
    sentence: str
    further: str


@dataclass(frozen=True)
class Found:
    """The findings of one check. `further` counts those that have no card; it is empty if there are none."""

    check: Check
    number: str
    cards: Sequence[Card]
    further: str

    @classmethod
    def of(cls, check: Check, findings: Sequence[Finding], by_id: Mapping[str, Picture], *, most: int) -> Self:
        """Make a card of each of the first `most` findings.

        `by_id` holds the pictures that findings name; a name that it lacks is a file that is not a picture.
        """
        cards = [_card(finding, by_id) for finding in findings[:most]]
        return cls(check, f"{len(findings):,}", cards, _further(len(findings), most))


def _card(finding: Finding, by_id: Mapping[str, Picture]) -> Card:
    shown = finding.pictures[:_PICTURES_OF_A_CARD]
    pictures = [_picture(by_id[name]) if name in by_id else CardPicture(name, "", None) for name in shown]
    return Card(pictures, finding.sentence, _further(len(finding.pictures), _PICTURES_OF_A_CARD))


def _picture(picture: Picture) -> CardPicture:
    place = " · ".join(part for part in (picture.label, picture.split) if part)
    return CardPicture(picture.id, place, thumbnail(picture))


def _further(number: int, shown: int) -> str:
    return f"{number - shown:,}" if number > shown else ""
