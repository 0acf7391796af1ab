"""Write a bundle into the model store, and remove old ones."""
