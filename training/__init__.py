"""The offline training module: labelled pictures in, a bundle in the model store out."""
