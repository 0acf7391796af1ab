"""A page on which a person decides about findings of the audit and mistakes of a model, one picture after another."""
