"""Compare a new version with the live one on its test pictures, to say whether it is to be held back.

It is held back if McNemar's test finds a significant difference and the new version has fewer pictures right. If no
comparison is possible, it is not held back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from app.contract.live import live_bundle
from app.contract.store import ModelStore
from app.engines.registry import REFERENCE
from app.errors import ImageclassError
from training.errors import DataError
from training.evaluation.bundle_score import Scored, score_bundle
from training.evaluation.compare.paired import SIGNIFICANT, Paired
from training.evaluation.recorded_split import learned_ids
from training.progress import Reporter

_LEAST_PICTURES = 6
"""With fewer pictures, no result is significant: even if all five differ in the same direction, p is 0.0625."""


@dataclass(frozen=True)
class AgainstLive:
    """The comparison of the new `version` with the `live` one, which is None if there is none or it cannot be
    determined.

    `paired` counts the live version as A and the new one as B; it is None, for a `reason`, if they were not compared.
    `left_out` is the number of test pictures that the live version was trained on.
    """

    version: int
    live: int | None
    left_out: int = 0
    paired: Paired | None = None
    reason: str | None = None

    @classmethod
    def of(
        cls,
        store: ModelStore,
        name: str,
        version: int,
        test: Scored | None,
        *,
        labels: Sequence[str],
        cache: bool,
        reporter: Reporter,
    ) -> Self:
        """Compare the new version's answers to its `test` pictures with those of the live version, and report the
        result.

        The live version's record lists the ids of its training pictures; they are left out even if the data set has
        another name by now.
        """
        live, left_out = None, 0
        try:
            bundle = live_bundle(store, name)
            if bundle is None:
                return cls(version, None, reason="No version is live.")
            live = bundle.version
            if test is None:
                raise DataError("There are no test pictures.")
            if set(bundle.manifest.labels) != set(labels):
                raise DataError(f"Version {live} has other classes.")
            learned, of_test = learned_ids(bundle), test.tensors.pictures
            rows = [row for row, picture in enumerate(of_test) if picture.id not in learned]
            left_out = len(of_test) - len(rows)
            if len(rows) < _LEAST_PICTURES:
                raise DataError(f"{len(rows)} test pictures that version {live} was not trained on are not enough.")
            pictures = [of_test[row] for row in rows]
            scored = score_bundle(bundle, pictures, engine=REFERENCE, cache=cache, reporter=reporter)
            found = cls(version, live, left_out, Paired.of(scored.right, test.right[rows]))
        except (ImageclassError, OSError) as exc:
            found = cls(version, live, left_out, reason=str(exc))
        reporter.say(found.sentence())
        return found

    @property
    def is_worse(self) -> bool:
        """Whether the new version is significantly worse."""
        return self.paired is not None and self.paired.is_real and self.paired.difference < 0

    def sentence(self) -> str:
        """Return the result in words."""
        live = "the live version" if self.live is None else f"the live version {self.live}"
        if self.paired is None:
            return f"version {self.version} is not compared with {live}, and so not held back: {self.reason}"
        verdict = self.paired.verdict(f"version {self.live}", f"version {self.version}")
        left_out = f" ({self.left_out:,} test pictures that it was trained on are left out)" if self.left_out else ""
        return f"against {live}{left_out}: {verdict}"

    def why_held_back(self) -> str | None:
        """Return why the new version is to be held back, None if it is not."""
        if self.paired is None or not self.is_worse:
            return None
        return (
            f"version {self.version} is significantly worse than version {self.live}, which was live: right on "
            f"{self.paired.only_b:,} test pictures that the other has wrong, wrong on {self.paired.only_a:,} that it "
            f"has right (p = {self.paired.p_value:.2g}, below {SIGNIFICANT})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it for metrics.json."""
        paired = self.paired
        return {
            "live": self.live,
            "left_out": self.left_out,
            "not_compared": self.reason,
            "held_back": self.is_worse,
            **(
                {
                    "pictures": paired.pictures,
                    "both_right": paired.both,
                    "only_live_right": paired.only_a,
                    "only_new_right": paired.only_b,
                    "neither_right": paired.neither,
                    "p_value": paired.p_value,
                    "level": SIGNIFICANT,
                }
                if paired is not None
                else {}
            ),
        }
