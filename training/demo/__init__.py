"""Small experiments in which a GAN can be watched while it learns."""
