"""Small experiments that show how a GAN learns."""
