//! Opens, makes and removes paths that strangers wrote, always below a held directory.
