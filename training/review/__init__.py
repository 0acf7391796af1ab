"""A page on which a person answers what the audit and a model found, one picture after another."""
