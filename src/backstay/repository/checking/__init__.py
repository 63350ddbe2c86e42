"""Whether what is stored is what it should be: packs, and objects of any kind."""
