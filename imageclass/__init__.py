"""What users of the installed package call: the command `imageclass`, and `imageclass.client` from Python.

`app` and `training` do the work; nothing of them imports this package.
"""
