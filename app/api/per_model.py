"""Objects that are built once for each model, because every request needs them."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier

_Made = TypeVar("_Made")


class PerModel(Generic[_Made]):
    """The objects of the models that take requests, and of replaced ones that still answer requests in flight."""

    def __init__(self, catalogue: Catalogue, make: Callable[[Classifier], _Made]) -> None:
        self._catalogue = catalogue
        self._make = make
        self._made: dict[Classifier, _Made] = {}

    def of(self, model: Classifier) -> _Made:
        made = self._made.get(model)
        if made is None:
            answering: Sequence[Classifier] = [*self._catalogue.answering, model]
            # Another version went live: forget replaced ones.
            kept = {each: self._made[each] for each in answering if each in self._made}
            made = kept[model] = self._make(model)
            self._made = kept
        return made
