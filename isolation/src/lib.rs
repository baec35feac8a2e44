//! The four levels of isolation behind one trait.
