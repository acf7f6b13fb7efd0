//! Prepares, commits and views root filesystem trees.
