"""Fill templates. A template is named by its path within `training`, and lies beside the code that prepares its values.

File names, labels and commands are untrusted text. Every value is escaped when it enters a template, so HTML may be
written in templates only, never in a value.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("training", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """Return the text of a template, such as "audit/templates/audit.html.j2", filled with values."""
    return _ENVIRONMENT.get_template(template).render(values)
